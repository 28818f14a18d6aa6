//! Reads where a cache's credentials are: a secret or a service account with its secrets, each by its name.

use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::{Api, Client};

use crate::config::CredentialSettings;
use crate::error::{Doing, Error};
use crate::plan::credentials::{Found, Kept, Wish, secrets_of, storage_secret};

/// Reads what the wish names in this namespace, and nothing else. What is not there is left out.
pub async fn find(
    client: &Client,
    namespace: &str,
    wish: &Wish<'_>,
    settings: &CredentialSettings,
) -> Result<Found, Error> {
    let mut found = Found { namespace: namespace.to_owned(), ..Found::default() };
    let names = match wish.kept {
        Kept::Key(_) => vec![storage_secret(settings).to_owned()],
        Kept::Account(name) => account(client, name, &mut found).await?,
        Kept::DefaultAccount => account(client, "default", &mut found).await?,
    };
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    for name in names {
        let secret = secrets.get_opt(&name).await.doing(|| format!("reading Secret {namespace}/{name}"))?;
        if let Some(secret) = secret {
            found.secrets.insert(name, secret);
        }
    }
    Ok(found)
}

/// Reads a service account; returns the names of its secrets.
async fn account(client: &Client, name: &str, found: &mut Found) -> Result<Vec<String>, Error> {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), &found.namespace);
    let account = accounts.get_opt(name).await;
    found.account = account.doing(|| format!("reading ServiceAccount {}/{name}", found.namespace))?;
    Ok(found.account.as_ref().map(secrets_of).unwrap_or_default())
}
