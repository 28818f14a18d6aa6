//! Events on the objects that people look at (O3). One that cannot be sent never fails a reconcile.

use std::sync::Arc;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};

use crate::plan::cache::Happening;
use crate::plan::names::MANAGER;
use crate::telemetry::metrics::OperatorMetrics;

/// The longest note that the API server takes, in bytes.
const NOTE_MAX: usize = 1024;

pub(super) struct Events {
    recorder: Recorder,
    metrics: Arc<OperatorMetrics>,
}

impl Events {
    pub(super) fn new(client: Client, pod: Option<String>, metrics: Arc<OperatorMetrics>) -> Self {
        let reporter = Reporter { controller: MANAGER.into(), instance: pod };
        Self { recorder: Recorder::new(client, reporter), metrics }
    }

    /// Something that somebody should look at.
    pub(super) async fn warn(&self, on: ObjectReference, reason: &str, note: String) {
        let happening = Happening { warning: true, reason: reason.into(), note, node: None };
        self.publish(on, happening).await;
    }

    /// Something that happened to a cache.
    pub(super) async fn publish(&self, on: ObjectReference, happening: Happening) {
        let mut note = happening.note;
        note.truncate(note.floor_char_boundary(NOTE_MAX));
        // The same fact on another node is another Event, not a repetition of the first.
        let related = happening.node.map(|name| ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Node".into()),
            name: Some(name),
            ..ObjectReference::default()
        });
        let event = Event {
            type_: if happening.warning { EventType::Warning } else { EventType::Normal },
            reason: happening.reason,
            note: Some(note),
            action: "Cache".into(),
            secondary: related,
        };
        if let Err(error) = self.recorder.publish(&event, &on).await {
            self.metrics.event_failed();
            tracing::warn!(object = on.name, reason = event.reason, %error, "an Event could not be sent");
        }
    }
}
