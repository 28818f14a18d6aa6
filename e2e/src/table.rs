//! The tables of `kubectl get`, compared without ages and spacing.

use std::collections::BTreeMap;

/// The rows of a table by column. Columns are where the header's words are: two spaces divide them.
pub fn rows(text: &str) -> Vec<BTreeMap<String, String>> {
    let mut lines = text.lines().filter(|line| !line.trim().is_empty());
    let Some(header) = lines.next() else { return Vec::new() };
    let columns = split(header);
    lines.map(|line| columns.iter().cloned().zip(split(line)).collect()).collect()
}

fn split(line: &str) -> Vec<String> {
    line.trim().split("  ").map(str::trim).filter(|cell| !cell.is_empty()).map(Into::into).collect()
}

/// The columns of `wanted` that differ in `found`, other than those that tell time.
pub fn differences(wanted: &str, found: &str) -> Vec<String> {
    let (wanted, found) = (rows(wanted), rows(found));
    if wanted.len() != found.len() {
        return vec![format!("{} rows instead of {}", found.len(), wanted.len())];
    }
    let mut differences = Vec::new();
    for (wanted, found) in wanted.iter().zip(&found) {
        if wanted.keys().ne(found.keys()) {
            differences.push(format!("columns {:?} instead of {:?}", found.keys(), wanted.keys()));
        }
        for (column, value) in
            wanted.iter().filter(|(column, _)| !["AGE", "DURATION"].contains(&column.as_str()))
        {
            if found.get(column) != Some(value) {
                differences.push(format!("{column} is {:?} instead of {value:?}", found.get(column)));
            }
        }
    }
    differences
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_and_spacing_do_not_matter_and_everything_else_does() {
        let wanted = "NAME   NODE SELECTOR   AGE\na      <none>          5d\n";
        assert_eq!(
            differences(wanted, "NAME     NODE SELECTOR   AGE\na        <none>   3s\n"),
            Vec::<String>::new()
        );
        assert_eq!(differences(wanted, "NAME   NODE SELECTOR   AGE\nb      <none>   3s\n").len(), 1);
        assert_eq!(differences(wanted, "NAME   AGE\na      3s\n").len(), 2);
    }
}
