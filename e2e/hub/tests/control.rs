//! The control port, through its client.

use std::sync::Arc;

use localmodel_hub::{Control, ControlError, Fault, FaultKind, Hub, ModelSpec, Origin, serve};
use tokio::net::TcpListener;

#[tokio::test]
async fn what_a_test_asks_of_the_control_port_happens_at_the_hub() {
    let hub = Arc::new(Hub::start(Vec::new()).await);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let control = Control::new(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    tokio::spawn(serve(listener, hub.clone()));
    assert!(control.healthy().await);

    let spec = ModelSpec { commits: 2, ..ModelSpec::new("acme/a", 20_000, 2) };
    let commits = control.add_model(&spec).await.unwrap();
    assert_eq!(commits, hub.commits("acme/a"));
    let [old, new] = [control.files("acme/a", &commits[0]).await, control.files("acme/a", "main").await];
    let differ = |(path, digest): (&String, &String)| old.as_ref().unwrap()[path] != *digest;
    assert_eq!(new.unwrap().iter().filter(|file| differ(*file)).count(), 2, "both shards, nothing else");
    control.move_branch("acme/a", "main", &commits[0]).await.unwrap();
    assert_eq!(control.files("acme/a", "main").await.unwrap(), old.unwrap());

    let fault = Fault::always("acme/a/revision/main", FaultKind::Status(502)).at(Origin::Hub);
    control.fault(&fault).await.unwrap();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("{}/api/models/acme/a/revision/main", hub.endpoint());
    let status = async || client.get(&url).send().await.unwrap().status().as_u16();
    assert_eq!(status().await, 502);
    control.clear_faults("acme/other").await.unwrap();
    assert_eq!(status().await, 502, "faults of others are theirs to clear");
    control.clear_faults("acme/a").await.unwrap();
    assert_eq!(status().await, 200);
    let seen = control.requests("acme/a").await.unwrap();
    assert_eq!(seen.iter().map(|request| request.status).collect::<Vec<_>>(), [502, 502, 200]);
    control.clear_requests("").await.unwrap();
    assert!(hub.requests().is_empty());

    control.force_push("acme/a", "main", &commits[1]).await.unwrap();
    let error = control.files("acme/a", &commits[0]).await.unwrap_err();
    assert!(matches!(error, ControlError::Refused { status: 404, .. }), "{error}");
}
