use super::*;

fn plain(width: usize) -> Look {
    Look { width, height: None, colour: false }
}

#[test]
fn a_line_that_is_too_long_ends_in_an_ellipsis_at_the_last_column() {
    let line = Line::of(Tone::Bad, "failed").add(Tone::Plain, ": gpu-a, gpu-b");
    assert_eq!(line.print(plain(20)), "failed: gpu-a, gpu-b");
    assert_eq!(line.print(plain(19)), "failed: gpu-a, gpu…");
    assert_eq!(line.print(plain(6)), "faile…");
    assert_eq!(line.print(plain(7)), "failed…");
    assert_eq!(line.print(plain(1)), "…");
    assert_eq!(line.print(plain(0)), "");
}

#[test]
fn wide_letters_take_two_columns_and_are_never_halved() {
    let line = Line::of(Tone::Plain, "模型模型");
    assert_eq!(line.width(), 8);
    assert_eq!(line.print(plain(8)), "模型模型");
    for width in 0..8 {
        assert!(measure_text_width(&line.print(plain(width))) <= width, "{width}");
    }
}

#[test]
fn colours_are_painted_only_when_asked() {
    let line = Line::of(Tone::Bad, "failed").add(Tone::Plain, " here");
    assert_eq!(line.print(Look { colour: true, ..plain(80) }), "\u{1b}[31mfailed\u{1b}[0m here");
    assert_eq!(line.print(plain(80)), "failed here");
}

#[test]
fn nothing_that_comes_from_the_cluster_moves_the_cursor() {
    assert_eq!(clean("a\u{1b}[2Jb\rc\td\u{202e}e\u{7}"), "ab c de ");
}

#[test]
fn a_text_is_wrapped_at_blanks_and_a_long_word_is_divided() {
    assert_eq!(wrap("one two three", 7, 9), ["one two", "three"]);
    assert_eq!(wrap("see https://example.com/x now", 10, 9), ["see", "https://ex", "ample.com/", "x now"]);
    assert_eq!(wrap("one two three four", 7, 2), ["one two", "three…"]);
    assert_eq!(wrap("型型", 1, 9), ["型", "型"]);
    assert_eq!(wrap("ab", 0, 9), ["a", "b"]);
    assert!(wrap(" ", 5, 9).is_empty());
}

#[test]
fn of_many_names_as_many_are_told_as_fit() {
    let all = ["gpu-a", "gpu-b", "gpu-c"];
    assert_eq!(names(all.into_iter(), 40), "gpu-a, gpu-b, gpu-c");
    assert_eq!(names(all.into_iter(), 18), "gpu-a and 2 more");
    assert_eq!(names(all.into_iter(), 0), "gpu-a and 2 more");
    assert_eq!(names([].into_iter(), 40), "");
}

#[test]
fn a_bar_is_full_only_when_all_is_there() {
    assert_eq!(bar(0.999, 4), ("███".into(), "░".into()));
    assert_eq!(bar(1.0, 4), ("████".into(), String::new()));
    assert_eq!(bar(7.0, 2), ("██".into(), String::new()));
    assert_eq!(bar(f64::NAN, 2), (String::new(), "░░".into()));
}

#[test]
fn in_a_narrow_table_bars_give_way_first_and_then_names() {
    let drawn = |width| {
        let mut table = Table::new(&[(Side::Left, "CACHE"), (Side::Left, "BAR"), (Side::Right, "EMPTY")]);
        table.row(vec![
            Cell::text(Tone::Bad, "✗"),
            Cell::text(Tone::Plain, "a-model-with-a-long-name"),
            Cell::Bar(Tone::Bad, 0.5),
            Cell::empty(),
        ]);
        print(&table.draw(width), plain(width))
    };
    assert_eq!(drawn(48).lines().last(), Some("✗ a-model-with-a-long-name  ██████████░░░░░░░░░░"));
    assert_eq!(drawn(38).lines().last(), Some("✗ a-model-with-a-long-name  █████░░░░░"));
    assert_eq!(drawn(30).lines().last(), Some("✗ a-model-with-a-lo…  ████░░░░"));
    assert!(!drawn(80).contains("EMPTY"), "a column with nothing in it is left out");
}

#[test]
fn what_does_not_fit_a_window_is_counted() {
    let lines: Vec<Line> = ["a", "b", "c"].map(|text| Line::of(Tone::Plain, text)).into();
    let look = |height| Look { height: Some(height), ..plain(80) };
    assert_eq!(print(&lines, look(3)), "a\nb\nc\n");
    assert_eq!(print(&lines, look(2)), "a\n… 2 more lines; a larger window shows them\n");
    assert_eq!(print(&lines, look(0)), "");
}
