use super::*;

#[test]
fn the_time_of_the_last_change_stays_while_the_status_stays() {
    let early = Timestamp::from_second(1_000).unwrap();
    let late = Timestamp::from_second(2_000).unwrap();
    let no = [Statement::ready(false, "Downloading", "0 of 1")];
    let first = conditions(&no, &[], Some(1), early);
    let other_reason = [Statement::ready(false, "DownloadFailed", "no token")];
    let second = conditions(&other_reason, &first, Some(1), late);
    assert_eq!(second[0].last_transition_time, Time(early));
    assert_eq!(second[0].reason, "DownloadFailed");
    let third = conditions(&[Statement::ready(true, "Available", "1 of 1")], &second, Some(1), late);
    assert_eq!(third[0].last_transition_time, Time(late));
}
