//! Tells somebody of each request: which path, what was answered, and how long that took (O2).

use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};

use super::review::Verdict;

/// The same routes, each answer told with its path, whether it denied (none where nothing could be decided),
/// and how long it took.
pub fn measured<F>(router: Router, tell: F) -> Router
where
    F: Fn(&str, Option<bool>, Duration) + Clone + Send + Sync + 'static,
{
    router.route_layer(from_fn(move |request: Request, next: Next| {
        let tell = tell.clone();
        async move {
            let begun = Instant::now();
            let path = request.uri().path().to_owned();
            let response = next.run(request).await;
            let verdict = response.extensions().get::<Verdict>().and_then(|verdict| verdict.0);
            tell(&path, verdict, begun.elapsed());
            response
        }
    }))
}
