//! What is told of each answer.

use super::*;
use crate::webhook::measured;

#[tokio::test]
async fn each_answer_is_told_with_its_path_and_what_it_says() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let heard = told.clone();
    let tell = move |path: &str, denied, _| heard.lock().unwrap().push((path.to_owned(), denied));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let routes = measured(router(Arc::new(Known::default())), tell);
    tokio::spawn(async move { axum::serve(listener, routes).await });
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::new();
    let pod = |labels: Value| review("CREATE", "Pod", &json!({"metadata": {"labels": labels}, "spec": {}}));
    let panics = pod(json!({"localmodel.kserve.io/model": "panic"})).to_string();
    let unknown = pod(json!({"localmodel.kserve.io/model": "unknown"})).to_string();
    for (path, body) in [
        ("/mutate-pods", pod(json!({})).to_string()),
        ("/mutate-pods", unknown),
        ("/mutate-pods", panics),
        ("/validate-caches", "no review".to_owned()),
        ("/somewhere-else", String::new()),
    ] {
        client.post(format!("http://{address}{path}")).body(body).send().await.unwrap();
    }
    let expected = [
        ("/mutate-pods".to_owned(), Some(false)),
        ("/mutate-pods".to_owned(), Some(true)),
        ("/mutate-pods".to_owned(), None),
        ("/validate-caches".to_owned(), None),
    ];
    assert_eq!(*told.lock().unwrap(), expected);
}
