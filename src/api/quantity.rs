//! Kubernetes quantities (`10Gi`, `1.7T`, `1700G`) as exact whole bytes.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// A quantity that is no number this project can read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is not a quantity such as 10Gi or 1.7T")]
pub struct InvalidQuantity(pub String);

/// Whole bytes of a quantity; fractions of a byte are rounded up, as Kubernetes does.
pub fn bytes(quantity: &Quantity) -> Result<i128, InvalidQuantity> {
    parse(&quantity.0).ok_or_else(|| InvalidQuantity(quantity.0.clone()))
}

/// Whether two texts are the same quantity in different forms (`1024Mi` and `1Gi`): the API server
/// rewrites quantities of its own kinds to their canonical form.
pub fn same(a: &str, b: &str) -> bool {
    a == b || matches!((milli(a), milli(b)), (Some(a), Some(b)) if a == b)
}

/// The larger of two quantities; one that cannot be read is smaller than any other.
pub fn larger<'a>(a: &'a str, b: &'a str) -> &'a str {
    if milli(a) >= milli(b) { a } else { b }
}

/// Bytes for people: at most one digit behind the point, and never more than there are.
pub fn human(bytes: i128) -> String {
    let units = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let Some((name, unit)) = units.into_iter().find(|(_, unit)| bytes >= *unit) else {
        return format!("{bytes} B");
    };
    match (bytes / unit, bytes % unit * 10 / unit) {
        (whole, 0) => format!("{whole} {name}"),
        (whole, tenths) => format!("{whole}.{tenths} {name}"),
    }
}

/// Whole bytes as the shortest quantity that says exactly so much, a binary one where two are as short.
pub fn exact(bytes: i128) -> Quantity {
    let forms = UNITS.iter().filter(|(_, unit)| bytes % unit == 0);
    let forms = forms.map(|(suffix, unit)| format!("{}{suffix}", bytes / unit));
    Quantity(forms.min_by_key(String::len).unwrap_or_else(|| bytes.to_string()))
}

/// A short quantity that is no less.
pub fn at_least(bytes: i128) -> Quantity {
    short(bytes, |hundredths, rest| hundredths + i128::from(rest > 0))
}

/// A short quantity that is no more.
pub fn at_most(bytes: i128) -> Quantity {
    short(bytes, |hundredths, _| hundredths)
}

/// The exact quantity where that is short, else hundredths of the largest binary unit, rounded.
fn short(bytes: i128, round: impl Fn(i128, i128) -> i128) -> Quantity {
    const SHORT: usize = 6;
    let exact = exact(bytes);
    let unit = UNITS.iter().rfind(|(name, unit)| name.ends_with('i') && *unit <= bytes);
    let Some((suffix, unit)) = unit.filter(|_| exact.0.len() > SHORT) else { return exact };
    let hundredths = round(bytes * 100 / unit, bytes * 100 % unit);
    let number = format!("{}.{:02}", hundredths / 100, hundredths % 100);
    Quantity(format!("{}{suffix}", number.trim_end_matches('0').trim_end_matches('.')))
}

fn parse(text: &str) -> Option<i128> {
    let milli = milli(text)?;
    Some(milli.div_euclid(1000) + i128::from(milli.rem_euclid(1000) != 0))
}

/// The value in thousandths, rounded up: finer steps do not exist in the API.
fn milli(text: &str) -> Option<i128> {
    let (negative, text) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') || fraction.len() > 18 {
        return None;
    }
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    let (times, by) = scale(suffix)?;
    let numerator = digits.checked_mul(times)?.checked_mul(1000)?;
    let denominator = by.checked_mul(10i128.checked_pow(u32::try_from(fraction.len()).ok()?)?)?;
    let milli = numerator.div_euclid(denominator) + i128::from(numerator.rem_euclid(denominator) != 0);
    Some(if negative { -milli } else { milli })
}

/// The suffixes and what they stand for.
const UNITS: [(&str, i128); 13] = [
    ("", 1),
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
    ("Pi", 1 << 50),
    ("Ei", 1 << 60),
    ("k", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
    ("P", 1_000_000_000_000_000),
    ("E", 1_000_000_000_000_000_000),
];

/// A suffix as a multiplier and a divisor.
fn scale(suffix: &str) -> Option<(i128, i128)> {
    if let Some((_, unit)) = UNITS.iter().find(|(name, _)| *name == suffix) {
        return Some((*unit, 1));
    }
    match suffix {
        "m" => return Some((1, 1000)),
        "u" => return Some((1, 1_000_000)),
        "n" => return Some((1, 1_000_000_000)),
        _ => {}
    }
    let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    let power = 10i128.checked_pow(exponent.unsigned_abs()).filter(|_| exponent.abs() <= 18)?;
    Some(if exponent < 0 { (1, power) } else { (power, 1) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_reads_them() {
        let cases = [
            ("10Gi", 10 << 30),
            ("1.7T", 1_700_000_000_000),
            ("1700G", 1_700_000_000_000),
            ("0", 0),
            ("-1", -1),
            ("+2k", 2000),
            (".5Ki", 512),
            ("1.", 1),
            ("100m", 1),
            ("1e3", 1000),
            ("2E", 2_000_000_000_000_000_000),
            ("1500E-3", 2),
            ("12345", 12345),
        ];
        for (text, expected) in cases {
            assert_eq!(bytes(&Quantity(text.into())), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_refused_with_its_text() {
        for text in ["", "-", ".", "ten", "1 Gi", "1GiB", "1..5", "1e99", "0x10"] {
            assert_eq!(bytes(&Quantity(text.into())), Err(InvalidQuantity(text.into())), "{text}");
        }
    }

    #[test]
    fn bytes_are_written_exactly_and_as_short_as_that_can_be() {
        let cases = [
            (0, "0"),
            (1, "1"),
            (1023, "1023"),
            (1024, "1Ki"),
            (1000, "1k"),
            (10 << 30, "10Gi"),
            (1_700_000_000_000, "1700G"),
            (1_700_000_000_000 - (10 << 30), "1649670490Ki"),
        ];
        for (number, expected) in cases {
            assert_eq!(exact(number).0, expected);
            assert_eq!(bytes(&exact(number)), Ok(number), "{expected}");
        }
    }

    #[test]
    fn the_larger_of_two_quantities_is_found_whatever_their_forms() {
        for (a, b, expected) in
            [("1", "100m", "1"), ("1Gi", "4G", "4G"), ("1Gi", "much", "1Gi"), ("x", "1", "1")]
        {
            assert_eq!(larger(a, b), expected, "{a} {b}");
        }
    }

    #[test]
    fn people_read_bytes_in_binary_units_with_one_digit() {
        for (bytes, expected) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1 << 20, "1 MiB"),
            ((3 << 30) / 2, "1.5 GiB"),
            (1_700_000_000_000, "1.5 TiB"),
            ((1 << 30) - 1, "1023.9 MiB"),
        ] {
            assert_eq!(human(bytes), expected);
        }
    }

    #[test]
    fn numbers_for_people_are_short_and_rounded_to_the_side_that_promises_less() {
        for (bytes, used, available) in [
            (0, "0", "0"),
            (1023, "1023", "1023"),
            (10 << 30, "10Gi", "10Gi"),
            (1_700_000_000_000, "1700G", "1700G"),
            ((14 << 30) + 1024, "14.01Gi", "14Gi"),
            (1_700_000_000_000 - (10 << 30), "1.54Ti", "1.53Ti"),
            (12_345_678, "11.78Mi", "11.77Mi"),
        ] {
            assert_eq!((at_least(bytes).0.as_str(), at_most(bytes).0.as_str()), (used, available), "{bytes}");
            let read = |quantity| super::bytes(&quantity).unwrap();
            assert!(read(at_least(bytes)) >= bytes && read(at_most(bytes)) <= bytes, "{bytes}");
        }
    }

    #[test]
    fn two_forms_of_one_quantity_are_the_same() {
        assert!(same("1024Mi", "1Gi"));
        assert!(same("0.1", "100m"));
        assert!(!same("1G", "1Gi"));
        assert!(!same("a", "b"));
    }
}
