use serde_json::{Value, json};

use super::*;

const PATIENCE: u64 = 100;

fn status(value: Value) -> Option<GateStatus> {
    serde_json::from_value(value).unwrap()
}

fn downloading(done: i64) -> Option<GateStatus> {
    status(json!({"phase": "ModelDownloading", "bytesDone": done, "bytesTotal": 1000}))
}

fn failed() -> Option<GateStatus> {
    status(json!({"phase": "ModelDownloadError", "reason": "TokenMissing", "message": "give a token"}))
}

fn pending() -> Option<GateStatus> {
    status(json!({"phase": "ModelDownloadPending"}))
}

/// What a new watch says of these looks, each with its second.
fn decisions(looks: impl IntoIterator<Item = (u64, Option<GateStatus>)>) -> Vec<Decision> {
    let mut watch = Watch::new(Duration::from_secs(PATIENCE));
    looks.into_iter().map(|(second, seen)| watch.decide(seen, Duration::from_secs(second))).collect()
}

fn last(looks: impl IntoIterator<Item = (u64, Option<GateStatus>)>) -> Decision {
    decisions(looks).pop().unwrap()
}

fn lines(looks: impl IntoIterator<Item = (u64, Option<GateStatus>)>) -> Vec<String> {
    let line = |decision| match decision {
        Decision::Hold(line) => line,
        other => panic!("{other:?}"),
    };
    decisions(looks).into_iter().filter_map(line).collect()
}

fn gives_up(decision: &Decision, reason: &str, text: &str) -> bool {
    matches!(decision, Decision::GiveUp(failure) if failure.reason == reason && failure.message.contains(text))
}

#[test]
fn a_complete_copy_opens_the_gate_at_the_first_look() {
    let complete = || status(json!({"phase": "ModelDownloaded"}));
    assert_eq!(last([(0, complete())]), Decision::Open);
    assert_eq!(last([(0, None), (1, failed()), (PATIENCE * 5, complete())]), Decision::Open);
}

#[test]
fn each_change_is_one_line() {
    let told =
        lines([(0, None), (1, pending()), (2, pending()), (3, failed()), (4, failed()), (5, pending())]);
    assert_eq!(
        told,
        [
            "the download has not begun",
            "the download has failed: TokenMissing: give a token",
            "the download has not begun",
        ]
    );
}

#[test]
fn progress_is_told_at_most_every_ten_seconds_with_bytes_percent_and_rate() {
    let looks = (0..=25).map(|second: u64| (second, downloading(i64::try_from(second).unwrap() * 20)));
    assert_eq!(
        lines(looks),
        [
            "the download is under way, 0 of 1000 bytes (0 %)",
            "the download is under way, 200 of 1000 bytes (20 %), 20 bytes/s",
            "the download is under way, 400 of 1000 bytes (40 %), 20 bytes/s",
        ]
    );
}

#[test]
fn it_gives_up_when_no_agent_has_said_anything() {
    assert_eq!(last([(0, None), (PATIENCE - 1, None)]), Decision::Hold(None));
    let end = last([(0, None), (PATIENCE, None)]);
    assert!(gives_up(&end, "NoAgent", "no agent has said anything about this copy"), "{end:?}");
}

#[test]
fn it_gives_up_with_the_agents_last_word_when_nothing_moves() {
    let end = last([(5, failed()), (PATIENCE + 5, failed())]);
    assert!(gives_up(&end, "TokenMissing", "the download has failed: TokenMissing: give a token"), "{end:?}");
    assert!(gives_up(&end, "TokenMissing", "nothing has moved for 1m 40s"), "{end:?}");
    let vanished = last([(5, failed()), (PATIENCE + 5, None)]);
    assert!(gives_up(&vanished, "TokenMissing", "give a token"), "{vanished:?}");
    let stuck = last([(0, downloading(10)), (PATIENCE, downloading(10))]);
    assert!(gives_up(&stuck, "NoProgress", "10 of 1000 bytes (1 %)"), "{stuck:?}");
}

#[test]
fn more_bytes_than_ever_are_movement_and_the_same_failure_again_is_none() {
    let slow =
        (0..50).map(|step: u64| (step * (PATIENCE - 1), downloading(i64::try_from(step).unwrap() + 1)));
    assert!(decisions(slow).iter().all(|decision| matches!(decision, Decision::Hold(_))));
    let circles = (0..4).flat_map(|round: u64| {
        [(round * 30, pending()), (round * 30 + 10, downloading(7)), (round * 30 + 20, failed())]
    });
    let end = last(circles.chain([(PATIENCE + 20, failed())]));
    assert!(gives_up(&end, "TokenMissing", "give a token"), "{end:?}");
}

#[test]
fn patience_is_a_time_that_people_write() {
    assert_eq!(positive("30m"), Ok(SignedDuration::from_mins(30)));
    assert_eq!(positive("1h 30m"), Ok(SignedDuration::from_mins(90)));
    for text in ["0s", "-5m", "soon", ""] {
        assert!(positive(text).is_err(), "{text}");
    }
}

#[test]
fn what_cannot_be_read_is_not_yet_known() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("status.json");
    assert_eq!(look(&path), None);
    for content in ["", "{\"phase\":\"ModelDown", "[]", &format!("{{\"phase\":\"\"{}}}", " ".repeat(70_000))]
    {
        std::fs::write(&path, content).unwrap();
        assert_eq!(look(&path), None, "{}", content.len());
    }
    std::fs::write(&path, r#"{"phase":"ModelDownloading","bytesDone":5,"later":"field"}"#).unwrap();
    assert_eq!(look(&path).unwrap().bytes_done, Some(5));
}
