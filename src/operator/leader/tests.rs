use k8s_openapi::api::core::v1::ConfigMap;
use wiremock::matchers::{method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::*;

const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/kserve/leases/localmodel-operator";
const MAPS: &str = "/api/v1/namespaces/kserve/configmaps";

struct World {
    server: MockServer,
    client: Client,
    fence: Fence,
}

impl World {
    async fn new() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let server = MockServer::start().await;
        let config = Config::new(server.uri().parse().unwrap());
        let fence = Fence::default();
        Self { client: fence.client(config).unwrap(), fence, server }
    }

    fn candidate(&self, me: &str) -> Candidate {
        Candidate::new(&self.client, "kserve", me.into(), self.fence.clone())
    }

    async fn answers(&self, verb: &str, at: &str, answer: ResponseTemplate) {
        Mock::given(method(verb)).and(path(at)).respond_with(answer).mount(&self.server).await;
    }

    async fn lease_of(&self, holder: &str) {
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": NAME, "namespace": "kserve", "resourceVersion": "7"},
            "spec": {"holderIdentity": holder, "leaseDurationSeconds": 15, "leaseTransitions": 3},
        });
        self.answers("GET", LEASE, ResponseTemplate::new(200).set_body_json(&lease)).await;
        self.answers("PATCH", LEASE, ResponseTemplate::new(200).set_body_json(&lease)).await;
    }

    async fn writes(&self) -> Vec<(String, serde_json::Value)> {
        let requests = self.server.received_requests().await.unwrap();
        let writes = requests.iter().filter(|request| !request.method.is_safe());
        writes.map(|write| (write.url.path().to_owned(), write.body_json().unwrap())).collect()
    }

    async fn write_a_map(&self) -> Result<ConfigMap, kube::Error> {
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), "kserve");
        let mut map = ConfigMap::default();
        map.metadata.name = Some("m".into());
        maps.create(&PostParams::default(), &map).await
    }
}

#[tokio::test]
async fn who_does_not_lead_reads_and_writes_nothing() {
    let world = World::new().await;
    world.lease_of("another").await;
    world.answers("POST", MAPS, ResponseTemplate::new(201)).await;
    let candidate = world.candidate("me");
    assert_eq!(candidate.look().await.unwrap(), Step::Wait { holder: "another".into() });
    let refused = world.write_a_map().await.unwrap_err();
    assert!(refused.to_string().contains("another operator may lead"), "{refused}");
    assert_eq!(world.writes().await, []);
}

#[tokio::test]
async fn who_leads_writes_for_as_long_as_it_may_rely_on_the_lease() {
    let world = World::new().await;
    world.lease_of("").await;
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}});
    world.answers("POST", MAPS, ResponseTemplate::new(201).set_body_json(map)).await;
    world.candidate("me").elected().await;
    world.write_a_map().await.unwrap();
    let writes = world.writes().await;
    assert_eq!(writes[0].0, LEASE);
    assert_eq!(writes[0].1["metadata"]["resourceVersion"], "7", "of the lease that was seen");
    assert_eq!(writes[0].1["spec"]["holderIdentity"], "me");
    assert_eq!(writes[0].1["spec"]["leaseTransitions"], 4);

    // As after a pause of the whole process.
    world.fence.open_until(Instant::now());
    world.write_a_map().await.unwrap_err();
    assert_eq!(world.writes().await.len(), writes.len());
}

#[tokio::test]
async fn of_two_who_see_a_free_lease_the_slower_does_not_lead() {
    let world = World::new().await;
    world.answers("GET", LEASE, ResponseTemplate::new(404).set_body_json(status(404))).await;
    let leases = LEASE.strip_suffix("/localmodel-operator").unwrap();
    world.answers("POST", leases, ResponseTemplate::new(409).set_body_json(status(409))).await;
    let error = world.candidate("me").look().await.unwrap_err();
    assert!(error.is_conflict(), "{error}");
    world.write_a_map().await.unwrap_err();
}

#[tokio::test]
async fn a_lease_that_another_took_ends_the_lead_and_every_write() {
    let world = World::new().await;
    world.lease_of("another").await;
    world.fence.open_until(Instant::now() + RELIED_ON);
    let lost = world.candidate("me").lead().await;
    assert!(lost.to_string().contains("another's now"), "{lost}");
    world.write_a_map().await.unwrap_err();
}

#[tokio::test]
async fn who_leaves_gives_the_lease_back_and_takes_it_from_nobody() {
    let world = World::new().await;
    world.lease_of("me").await;
    let me = world.candidate("me");
    me.leave().await;
    assert_eq!(world.writes().await, [], "it did not lead");
    world.fence.open_until(Instant::now() + RELIED_ON);
    me.leave().await;
    let writes = world.writes().await;
    assert_eq!(writes[0].1["spec"]["holderIdentity"], "");
    world.write_a_map().await.unwrap_err();

    let other = World::new().await;
    other.lease_of("another").await;
    other.fence.open_until(Instant::now() + RELIED_ON);
    other.candidate("me").leave().await;
    assert_eq!(other.writes().await, []);
}

#[tokio::test]
async fn an_api_server_that_does_not_answer_holds_up_neither_a_look_nor_the_end() {
    let world = World::new().await;
    let never = ResponseTemplate::new(200).set_delay(Duration::from_hours(1));
    world.answers("GET", LEASE, never).await;
    let me = Candidate { answer_within: Duration::from_millis(20), ..world.candidate("me") };
    let error = me.look().await.unwrap_err();
    assert!(error.to_string().contains("reading Lease localmodel-operator: "), "{error}");
    assert!(error.to_string().contains("no answer within 20ms"), "{error}");
    world.fence.open_until(Instant::now() + RELIED_ON);
    me.leave().await;
    world.write_a_map().await.unwrap_err();
}

#[tokio::test]
async fn a_lease_whose_write_is_not_answered_is_not_relied_on() {
    let world = World::new().await;
    world.answers("PATCH", LEASE, ResponseTemplate::new(200).set_delay(Duration::from_hours(1))).await;
    world.lease_of("").await;
    let me = Candidate { answer_within: Duration::from_secs(1), ..world.candidate("me") };
    let error = me.look().await.unwrap_err();
    assert!(error.to_string().contains("writing Lease"), "{error}");
    assert!(!world.fence.is_open());
}

fn status(code: u16) -> serde_json::Value {
    let reason = if code == 404 { "NotFound" } else { "AlreadyExists" };
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": reason, "code": code})
}
