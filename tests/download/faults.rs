//! What goes wrong on the way and passes, and what does not pass (F4).

use std::time::{Duration, Instant};

use localmodel::download::limits::Limits;
use localmodel::download::{Reason, Settings, download, is_complete};
use localmodel_hub::{Fault, FaultKind, Origin, RateHeader};

use crate::{SHARD, SOURCE, World, starts, state_of};

#[tokio::test]
async fn faults_that_pass_cost_a_request_and_nothing_else() {
    let too_many = |header| FaultKind::TooManyRequests { seconds: 0, header };
    for fault in [
        Fault::once("/revision/", FaultKind::Status(500)),
        Fault::once("/tree/", FaultKind::Status(503)).times(2),
        Fault::once("/tree/", FaultKind::Cut { after: 50 }),
        Fault::once("/tree/", FaultKind::Stall { after: 50 }),
        Fault::once("/revision/", FaultKind::Hold),
        Fault::once("/revision/", too_many(RateHeader::RetryAfter)),
        Fault::once("/resolve/", FaultKind::Status(408)),
        Fault::once("/resolve/", FaultKind::Status(504)).times(3),
        Fault::once("config.json", FaultKind::Cut { after: 10 }),
        Fault::once("config.json", FaultKind::FlipByte),
        Fault::once("config.json", FaultKind::IgnoreRange),
        Fault::once(SHARD, FaultKind::ExpiredSignature).at(Origin::Hub),
        Fault::once("", FaultKind::ExpiredSignature).at(Origin::Cdn).times(2),
        Fault::once("", FaultKind::Status(500)).at(Origin::Cdn),
        Fault::once("", FaultKind::Status(416)).at(Origin::Cdn),
        Fault::once("", too_many(RateHeader::RetryAfter)).at(Origin::Cdn),
        Fault::once("", FaultKind::IgnoreRange).at(Origin::Cdn),
        Fault::once("", FaultKind::ShortBody).at(Origin::Cdn),
        Fault::once("", FaultKind::LongBody).at(Origin::Cdn),
        Fault::once("config.json", FaultKind::LongBody),
        Fault::once("", FaultKind::FlipByte).at(Origin::Cdn),
        Fault::once("", FaultKind::Hold).at(Origin::Cdn),
        Fault::once("", FaultKind::Cut { after: 0 }).at(Origin::Cdn),
        Fault::once("", FaultKind::Cut { after: 100_000 }).at(Origin::Cdn).times(2),
        Fault::once("", FaultKind::Stall { after: 100_000 }).at(Origin::Cdn),
    ] {
        let world = World::llama().await;
        world.hub.fault(fault.clone());
        let settings = Settings {
            limits: Limits { stall: Duration::from_millis(250), ..Limits::default() },
            ..world.settings()
        };
        if let Err(error) = download(&settings, SOURCE, &world.dest()).await {
            panic!("{fault:?}: {error}");
        }
        world.assert_copy_of("main");
    }
}

#[tokio::test]
async fn a_cut_body_goes_on_at_the_byte_where_it_stopped() {
    let world = World::llama().await;
    world.hub.fault(Fault::once(SHARD, FaultKind::Cut { after: 100_000 }).at(Origin::Cdn));
    world.hub.fault(Fault::once(SHARD, FaultKind::ShortBody).at(Origin::Cdn));
    world.run().await.unwrap();
    world.assert_copy_of("main");
    let (cdn, hub): (Vec<_>, Vec<_>) =
        world.hub.requests_of(SHARD).into_iter().partition(|request| request.origin == Origin::Cdn);
    let starts = starts(&cdn);
    assert_eq!(starts.len(), 3);
    assert!(starts[0] == 0 && starts[1] > 0 && starts[1] <= 100_000 && starts[2] > starts[1], "{starts:?}");
    assert_eq!(hub.len(), 1, "the address is still good");
}

#[tokio::test]
async fn an_answer_to_another_range_is_never_written_at_the_offset() {
    let world = World::llama().await;
    world.hub.fault(Fault::once(SHARD, FaultKind::Cut { after: 100_000 }).at(Origin::Cdn));
    world.hub.fault(Fault::always(SHARD, FaultKind::IgnoreRange).at(Origin::Cdn));
    world.run().await.unwrap();
    world.assert_copy_of("main");
    let cdn = world.hub.requests_of(SHARD).into_iter().filter(|request| request.origin == Origin::Cdn);
    assert_eq!(cdn.count(), 2, "the bytes were right at once, without a second try");
}

#[tokio::test]
async fn a_server_that_ignores_all_ranges_serves_files_of_several_segments() {
    let world = World::llama().await;
    world.hub.fault(Fault::always("", FaultKind::IgnoreRange).at(Origin::Cdn));
    let settings = Settings { segment: 50_000, ..world.settings() };
    download(&settings, SOURCE, &world.dest()).await.unwrap();
    world.assert_copy_of("main");
    assert_eq!(world.asked(Origin::Cdn).len(), 2, "one answer is the whole of each shard");
}

#[tokio::test]
async fn an_expired_link_is_resolved_again_and_the_transfer_goes_on_at_the_same_byte() {
    let world = World::llama().await;
    world.hub.fault(Fault::once(SHARD, FaultKind::Cut { after: 100_000 }).at(Origin::Cdn));
    world.hub.fault(Fault::once(SHARD, FaultKind::ExpiredSignature).at(Origin::Cdn));
    world.run().await.unwrap();
    world.assert_copy_of("main");
    let (cdn, hub): (Vec<_>, Vec<_>) =
        world.hub.requests_of(SHARD).into_iter().partition(|request| request.origin == Origin::Cdn);
    let starts = starts(&cdn);
    assert!(starts.len() == 3 && starts[1] > 0 && starts[1] == starts[2], "{starts:?}");
    assert_eq!((cdn[1].status, hub.len()), (403, 2));
}

#[tokio::test]
async fn sizes_that_lie_are_never_believed_and_never_fill_the_disk() {
    for (by, reason) in [
        (1, Reason::SourceUnavailable),
        (-1, Reason::SourceUnavailable),
        (1 << 20, Reason::SourceUnavailable),
        (1 << 56, Reason::DiskFull),
        (1 << 62, Reason::TooLarge),
    ] {
        let world = World::llama().await;
        world.hub.fault(Fault::always("/tree/", FaultKind::WrongSizes(by)));
        let error = world.run().await.unwrap_err();
        assert_eq!(error.reason(), reason, "{by}: {error}");
        assert!(!is_complete(&world.dest()) && !world.dest().join(SHARD).exists(), "{by}");
        assert_eq!(world.hub.requests_of("/resolve/").is_empty(), by >= 1 << 56, "{by}");
    }
}

#[tokio::test]
async fn ranges_of_one_file_come_in_parallel_behind_one_look_up() {
    let world = World::llama().await;
    let settings = Settings { chunk: 8 << 10, small: 1 << 10, ..world.settings() };
    world.hub.fault(Fault::always("", FaultKind::Cut { after: 3000 }).at(Origin::Cdn).times(40));
    download(&settings, SOURCE, &world.dest()).await.unwrap();
    world.assert_copy_of("main");
    let (cdn, hub): (Vec<_>, Vec<_>) =
        world.hub.requests_of(SHARD).into_iter().partition(|request| request.origin == Origin::Cdn);
    assert!(cdn.len() > 20, "{}", cdn.len());
    assert_eq!(hub.len(), 1);
}

#[tokio::test]
async fn progress_renews_the_patience() {
    let world = World::llama().await;
    world.hub.fault(Fault::once(SHARD, FaultKind::Cut { after: 20_000 }).at(Origin::Cdn).times(8));
    world.run().await.unwrap();
    world.assert_copy_of("main");
}

#[tokio::test]
async fn a_file_that_comes_corrupt_twice_fails_and_is_not_placed() {
    let world = World::llama().await;
    world.hub.fault(Fault::always(SHARD, FaultKind::FlipByte).at(Origin::Cdn));
    let error = world.run().await.unwrap_err();
    assert_eq!(error.reason(), Reason::ChecksumMismatch);
    assert!(error.to_string().contains(SHARD), "{error}");
    let cdn = world.hub.requests_of(SHARD).into_iter().filter(|request| request.origin == Origin::Cdn);
    assert_eq!(starts(&cdn.collect::<Vec<_>>()), [0, 0], "the second try is a clean one");
    assert!(!is_complete(&world.dest()) && !world.dest().join(SHARD).exists());
    assert!(!state_of(&world.dest()).contains(&"manifest.json".to_owned()));
}

#[tokio::test]
async fn faults_that_stay_fail_with_their_reason_after_a_few_attempts() {
    let limited = FaultKind::TooManyRequests { seconds: 0, header: RateHeader::RetryAfter };
    for (fault, reason, requests) in [
        (Fault::always("/revision/", FaultKind::Status(503)), Reason::SourceUnavailable, 4),
        (Fault::always("/tree/", limited), Reason::RateLimited, 4),
        (Fault::always("/tree/", FaultKind::Status(400)), Reason::SourceRefused, 1),
        (Fault::always("/tree/", FaultKind::Status(501)), Reason::SourceRefused, 1),
        (Fault::always(SHARD, FaultKind::Cut { after: 0 }).at(Origin::Cdn), Reason::SourceUnavailable, 4),
        (Fault::always(SHARD, FaultKind::ExpiredSignature).at(Origin::Cdn), Reason::SourceUnavailable, 4),
        (Fault::always(SHARD, FaultKind::Status(400)).at(Origin::Cdn), Reason::SourceRefused, 1),
    ] {
        let world = World::llama().await;
        world.hub.fault(fault.clone());
        let error = world.run().await.unwrap_err();
        assert_eq!(error.reason(), reason, "{fault:?}: {error}");
        let hit = world.hub.requests_of(&fault.path).into_iter();
        let hit = hit.filter(|request| fault.origin.is_none_or(|origin| origin == request.origin)).count();
        assert_eq!(hit, requests, "{fault:?}");
        let text = error.to_string();
        assert!(!text.contains('?') && !text.contains("Signature"), "no query in {text}");
        assert!(!is_complete(&world.dest()));
    }
}

#[tokio::test]
async fn a_rate_limit_is_waited_for() {
    let world = World::llama().await;
    let limited = FaultKind::TooManyRequests { seconds: 0, header: RateHeader::RateLimit };
    world.hub.fault(Fault::once("/resolve/", limited));
    let begun = Instant::now();
    world.run().await.unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(1), "a second more than the header says");
    world.assert_copy_of("main");
}

#[tokio::test]
async fn a_hub_that_cannot_be_reached_is_named() {
    let world = World::llama().await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let settings = Settings { retry: world.settings().retry, ..Settings::new(&endpoint).unwrap() };
    let error = download(&settings, SOURCE, &world.dest()).await.unwrap_err();
    assert_eq!(error.reason(), Reason::ConnectionRefused);
    assert!(error.to_string().contains(&endpoint), "{error}");
}
