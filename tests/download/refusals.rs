//! Who may read what, who gets to see the token, and names that lead astray (F4, F5).

use std::fs;
use std::os::unix::fs::symlink;

use localmodel::download::settings::{Proxies, Token};
use localmodel::download::source::Trust;
use localmodel::download::{Reason, Settings, download};
use localmodel_hub::{Access, Model, Origin, STRANGER_TOKEN, TOKEN};

use crate::{REPO, SHARD, SOURCE, World, files_in};

#[tokio::test]
async fn no_access_fails_at_once_and_says_what_to_do() {
    for (access, token, reason, words) in [
        (Access::Private, "", Reason::TokenMissing, "private or does not exist"),
        (Access::Private, STRANGER_TOKEN, Reason::RepositoryNotFound, "the token may not read it"),
        (Access::Private, "hf_mistyped", Reason::TokenInvalid, "does not accept the token"),
        (Access::Public, "hf_mistyped", Reason::TokenInvalid, "expired, revoked or mistyped"),
        (Access::Gated, "", Reason::RepositoryGated, "accept its licence at"),
        (Access::Gated, STRANGER_TOKEN, Reason::RepositoryGated, "the token's account has no access"),
    ] {
        let world = World::new(Model::llama(REPO).size(9000).access(access)).await;
        let settings = Settings { token: Token::new(token), streams: 1, ..world.settings() };
        let error = download(&settings, SOURCE, &world.dest()).await.unwrap_err();
        assert_eq!(error.reason(), reason, "{access:?} {token}");
        let text = error.to_string();
        assert!(text.contains(words) && text.contains(REPO), "{text}");
        let advised = matches!(reason, Reason::TokenMissing | Reason::TokenInvalid) || token.is_empty();
        assert_eq!(text.contains("HF_TOKEN"), advised, "{text}");
        assert!(token.is_empty() || !text.contains(token), "{text}");
        let refused = world.hub.requests().iter().filter(|request| request.status >= 400).count();
        assert_eq!(refused, 1, "{access:?} {token}");
    }
}

#[tokio::test]
async fn what_does_not_exist_is_named() {
    let world = World::llama().await;
    for (source, reason, name) in [
        ("hf://acme/absent", Reason::TokenMissing, "acme/absent"),
        ("hf://acme/tiny:v9", Reason::RevisionNotFound, "v9"),
        ("hf://acme/tiny:0123456789abcdef0123456789abcdef01234567", Reason::RevisionNotFound, "0123456789ab"),
    ] {
        let error = download(&world.settings(), source, &world.dest()).await.unwrap_err();
        assert_eq!(error.reason(), reason, "{error}");
        assert!(error.to_string().contains(name), "{error}");
    }
    let settings = Settings { token: Token::new(TOKEN), ..world.settings() };
    let error = download(&settings, "hf://acme/absent", &world.dest()).await.unwrap_err();
    assert_eq!(error.reason(), Reason::RepositoryNotFound);
}

#[tokio::test]
async fn the_token_goes_to_the_hub_and_never_to_the_cdn() {
    let world = World::new(Model::llama(REPO).size(9000).access(Access::Private)).await;
    let settings = Settings { token: Token::new(TOKEN), ..world.settings() };
    download(&settings, SOURCE, &world.dest()).await.unwrap();
    world.assert_copy_of("main");
    for request in world.hub.requests() {
        assert_eq!(request.authorized, request.origin == Origin::Hub, "{}", request.path);
    }
    assert!(!world.asked(Origin::Cdn).is_empty());
}

#[tokio::test]
async fn hostile_names_are_refused_before_anything_is_written() {
    for name in ["../x", "/abs", "a/../../b", "a\0b", "..", ".localmodel/manifest.json", "a//b", "./a"] {
        let world = World::new(Model::llama(REPO).size(9000).file(name, "evil")).await;
        let error = world.run().await.unwrap_err();
        assert_eq!(error.reason(), Reason::UnsafeFileName, "{name:?}: {error}");
        let written: Vec<_> = files_in(world.dir.path()).into_keys().collect();
        assert_eq!(written, ["models/k/.localmodel/lock"], "{name:?}");
        assert!(world.hub.requests_of("/resolve/").is_empty(), "{name:?}");
    }
}

#[tokio::test]
async fn a_symlink_planted_in_the_folder_leads_nowhere() {
    let model = Model::llama(REPO).size(9000).file("sub/x", "ours");
    let world = World::new(model).await;
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("config.json"), "theirs").unwrap();
    fs::create_dir_all(world.dest()).unwrap();
    symlink(outside.path().join("config.json"), world.dest().join("config.json")).unwrap();
    symlink(outside.path(), world.dest().join("sub")).unwrap();
    let error = world.run().await.unwrap_err();
    assert_eq!(error.reason(), Reason::UnsafeFileName);
    assert!(error.to_string().contains("sub/x"), "{error}");
    assert_eq!(files_in(outside.path()).into_values().collect::<Vec<_>>(), [b"theirs"]);

    // Once the folder's link is gone the file's is replaced by the file.
    fs::remove_file(world.dest().join("sub")).unwrap();
    world.run().await.unwrap();
    world.assert_copy_of("main");
    assert_eq!(files_in(outside.path()).into_values().collect::<Vec<_>>(), [b"theirs"]);
}

#[tokio::test]
async fn a_proxy_is_used_unless_the_host_is_excepted() {
    let world = World::llama().await;
    let through = |proxy: &str, except: Option<&str>| Proxies {
        http: Some(proxy.to_owned()),
        except: except.map(str::to_owned),
        ..Proxies::default()
    };
    let nobody = "http://127.0.0.1:1";
    let settings = Settings { proxies: through(nobody, None), ..world.settings() };
    let error = download(&settings, SOURCE, &world.dest()).await.unwrap_err();
    assert_eq!(error.reason(), Reason::ProxyFailed);
    assert!(error.to_string().contains(nobody), "{error}");
    assert_eq!(world.hub.requests(), []);

    let settings = Settings { proxies: through(nobody, Some("127.0.0.1")), ..world.settings() };
    download(&settings, SOURCE, &world.dest()).await.unwrap();
    world.assert_copy_of("main");
    assert!(!world.hub.requests_of(SHARD).is_empty());
}

#[tokio::test]
async fn a_bundle_of_authorities_that_cannot_be_read_is_named() {
    let world = World::llama().await;
    let empty = world.dir.path().join("empty.pem");
    fs::write(&empty, "").unwrap();
    for bundle in [empty, world.dir.path().join("absent.pem")] {
        let settings =
            Settings { trust: Trust { only: vec![bundle], ..Trust::default() }, ..world.settings() };
        let error = download(&settings, SOURCE, &world.dest()).await.unwrap_err();
        assert_eq!(error.reason(), Reason::InvalidConfiguration);
        assert!(error.to_string().contains("SSL_CERT_FILE") && error.to_string().contains(".pem"), "{error}");
    }
}
