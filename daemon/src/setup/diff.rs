//! Two texts as a unified diff of one hunk: our changes are one block, so the lines that both begin and end with are
//! found from both ends, and what is left differs.

/// Lines shown around the change.
const CONTEXT: usize = 3;

/// The diff as `diff -u` prints it; none stands for no file.
pub(super) fn unified(path: &str, before: Option<&str>, after: Option<&str>) -> String {
    let header = |text: Option<&str>| if text.is_some() { path.to_owned() } else { "/dev/null".to_owned() };
    let old: Vec<&str> = before.unwrap_or_default().split_inclusive('\n').collect();
    let new: Vec<&str> = after.unwrap_or_default().split_inclusive('\n').collect();
    let head = old.iter().zip(&new).take_while(|(old, new)| old == new).count();
    let most = old.len().min(new.len()).saturating_sub(head);
    let tail = old.iter().rev().zip(new.iter().rev()).take(most).take_while(|(old, new)| old == new).count();
    let (gone, came) = (old.len().saturating_sub(head + tail), new.len().saturating_sub(head + tail));
    let (lead, trail) = (head.min(CONTEXT), tail.min(CONTEXT));
    let start = head.saturating_sub(lead);
    let mut text = format!("--- {}\n+++ {}\n", header(before), header(after));
    let (old_range, new_range) = (range(start, lead + gone + trail), range(start, lead + came + trail));
    text.push_str(&format!("@@ -{old_range} +{new_range} @@\n"));
    add(&mut text, ' ', old.iter().skip(start).take(lead));
    add(&mut text, '-', old.iter().skip(head).take(gone));
    add(&mut text, '+', new.iter().skip(head).take(came));
    add(&mut text, ' ', new.iter().skip(head + came).take(trail));
    text
}

/// `START,COUNT`, counted from 1, except that nothing starts at the line before it.
fn range(start: usize, count: usize) -> String {
    format!("{},{count}", if count == 0 { start } else { start + 1 })
}

fn add<'a>(text: &mut String, sign: char, lines: impl Iterator<Item = &'a &'a str>) {
    for line in lines {
        text.push(sign);
        text.push_str(line);
        if !line.ends_with('\n') {
            text.push_str("\n\\ No newline at end of file\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_added_block_shows_three_lines_around_it() {
        let diff = unified("/f", Some("1\n2\n3\n4\n5\n"), Some("1\n2\n3\n4\nnew\n5\n"));
        assert_eq!(diff, "--- /f\n+++ /f\n@@ -2,4 +2,5 @@\n 2\n 3\n 4\n+new\n 5\n");
    }

    #[test]
    fn a_new_file_and_a_removed_file_are_told_from_an_empty_one() {
        assert_eq!(unified("/f", None, Some("a\n")), "--- /dev/null\n+++ /f\n@@ -0,0 +1,1 @@\n+a\n");
        assert_eq!(unified("/f", Some("a\n"), None), "--- /f\n+++ /dev/null\n@@ -1,1 +0,0 @@\n-a\n");
        assert_eq!(unified("/f", Some("a\n"), Some("")), "--- /f\n+++ /f\n@@ -1,1 +0,0 @@\n-a\n");
    }

    #[test]
    fn a_missing_end_of_line_is_told() {
        let diff = unified("/f", Some("a"), Some("a\nb\n"));
        assert_eq!(diff, "--- /f\n+++ /f\n@@ -1,1 +1,2 @@\n-a\n\\ No newline at end of file\n+a\n+b\n");
    }

    #[test]
    fn repeated_lines_are_not_counted_twice() {
        let diff = unified("/f", Some("a\na\n"), Some("a\na\na\n"));
        assert_eq!(diff, "--- /f\n+++ /f\n@@ -1,2 +1,3 @@\n a\n a\n+a\n");
    }
}
