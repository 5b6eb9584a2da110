//! Rows of words under each other.

/// A wider cell does not widen its column: one strange name must not push everything off the screen.
const CELL_MAX: usize = 48;
/// Between two columns.
const GAP: &str = "  ";

/// The rows as lines whose columns stand under each other; what is in the last column is not padded.
pub(crate) fn aligned<const COLUMNS: usize>(rows: &[[String; COLUMNS]]) -> Vec<String> {
    let mut widths = [0; COLUMNS];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            let chars = cell.chars().count();
            if chars <= CELL_MAX {
                *width = chars.max(*width);
            }
        }
    }
    let line = |row: &[String; COLUMNS]| {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        cells.join(GAP).trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(rows: &[[&str; 3]]) -> Vec<String> {
        aligned(&rows.iter().map(|row| row.map(str::to_owned)).collect::<Vec<_>>())
    }

    #[test]
    fn columns_stand_under_each_other_and_lines_have_no_tail() {
        assert_eq!(lines(&[["1", "größe", "x"], ["22", "b", ""]]), ["1   größe  x", "22  b"]);
        assert_eq!(lines(&[]), Vec::<String>::new());
    }

    #[test]
    fn one_endless_cell_does_not_widen_the_others() {
        let long = "w".repeat(CELL_MAX + 1);
        assert_eq!(lines(&[[&long, "a", "b"], ["1", "a", "b"]]), [format!("{long}  a  b"), "1  a  b".to_owned()]);
    }
}
