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

#[test]
fn two_problems_of_one_kind_make_one_condition_with_the_words_of_both() {
    let now = Timestamp::from_second(1_000).unwrap();
    let problem = |message: &str| Statement::problem("NodeGroupNotFound", message);
    let statements = [problem("a is missing"), Statement::ready(false, "x", "y"), problem("b is missing")];
    let conditions = conditions(&statements, &[], Some(3), now);
    let kinds: Vec<&str> = conditions.iter().map(|c| c.type_.as_str()).collect();
    assert_eq!(kinds, ["NodeGroupNotFound", "Ready"]);
    assert_eq!(conditions[0].message, "a is missing; b is missing");
    assert_eq!((conditions[0].status.as_str(), conditions[0].observed_generation), ("True", Some(3)));
}

#[test]
fn a_problem_that_is_over_leaves_no_condition_and_comes_back_with_a_new_time() {
    let (early, late) = (Timestamp::from_second(1_000).unwrap(), Timestamp::from_second(2_000).unwrap());
    let problem = [Statement::problem("NameConflict", "taken")];
    let first = conditions(&problem, &[], None, early);
    assert_eq!(conditions(&[], &first, None, early), []);
    assert_eq!(conditions(&problem, &[], None, late)[0].last_transition_time, Time(late));
    assert_eq!(conditions(&problem, &first, None, late), first, "equal statements make an equal list");
}
