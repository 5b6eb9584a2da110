//! `$NAME` and `${NAME}` in values of make.conf: Portage's `varexpand`, quirk for quirk.

use std::collections::BTreeMap;

use thiserror::Error;

/// Bytes of one expanded value.
const VALUE_BYTES_MAX: usize = 1 << 20;

/// A value grew beyond 1 MiB.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("a value of more than {VALUE_BYTES_MAX} bytes")]
pub struct ExpandError;

fn is_name(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_'
}

/// The value with its variables replaced. A wrong reference makes the whole value empty, as for Portage.
pub(crate) fn expand(value: &str, variables: &BTreeMap<String, String>) -> Result<String, ExpandError> {
    let mut expanded = String::new();
    let (mut single, mut double) = (false, false);
    let mut rest = value;
    while let Some(current) = rest.chars().next() {
        let after = rest.get(current.len_utf8()..).unwrap_or_default();
        rest = after;
        match current {
            '\'' => {
                single ^= !double;
                expanded.push(current);
            }
            '"' => {
                double ^= !single;
                expanded.push(current);
            }
            _ if single => expanded.push(current),
            '\n' => expanded.push(' '),
            '\\' => rest = escape(after, &mut expanded),
            '$' if !after.is_empty() => match reference(after) {
                Some((name, after)) => {
                    expanded.push_str(variables.get(name).map_or("", String::as_str));
                    rest = after;
                }
                None => return Ok(String::new()),
            },
            _ => expanded.push(current),
        }
        if expanded.len() > VALUE_BYTES_MAX {
            return Err(ExpandError);
        }
    }
    Ok(expanded)
}

/// Appends what a backslash and the text after it mean, and gives what is left.
fn escape<'a>(after: &'a str, expanded: &mut String) -> &'a str {
    let mut characters = after.chars();
    match characters.next() {
        None => expanded.push('\\'),
        Some('$') => expanded.push('$'),
        Some('\\') => {
            expanded.push('\\');
            if let Some(rest) = after.get(1..)
                && let Some(next @ ('\'' | '"' | '$')) = rest.chars().next()
            {
                expanded.push(next);
                characters.next();
            }
        }
        Some('\n') => {}
        Some(other) => {
            expanded.push('\\');
            expanded.push(other);
        }
    }
    characters.as_str()
}

/// The name of a reference after its `$`, and what follows.
fn reference(after: &str) -> Option<(&str, &str)> {
    let braced = after.strip_prefix('{');
    let text = braced.unwrap_or(after);
    let (name, rest) = text.split_at(text.find(|character| !is_name(character)).unwrap_or(text.len()));
    let rest = if braced.is_some() { rest.strip_prefix('}')? } else { rest };
    (!name.is_empty()).then_some((name, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_cannot_double_without_end() {
        let mut variables = BTreeMap::from([("A".to_owned(), "x".repeat(1000))]);
        for _ in 0..10 {
            let doubled = expand("$A$A", &variables).unwrap();
            variables.insert("A".to_owned(), doubled);
        }
        assert_eq!(expand("$A$A", &variables), Err(ExpandError));
    }
}
