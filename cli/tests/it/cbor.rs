//! As much of DAG-CBOR (RFC 8949) as it takes to say what no node would: written here by hand, so that it does not share
//! the product's mistakes.

/// What can be said.
pub(crate) enum Value {
    Number(u64),
    Bytes(Vec<u8>),
    Text(String),
    List(Vec<Self>),
    /// Keys in the order of DAG-CBOR: shorter ones first.
    Map(Vec<(&'static str, Self)>),
    Flag(bool),
}

/// Its bytes.
pub(crate) fn encode(value: &Value) -> Vec<u8> {
    match value {
        Value::Number(number) => head(0, *number),
        Value::Bytes(bytes) => [head(2, bytes.len() as u64), bytes.clone()].concat(),
        Value::Text(text) => [head(3, text.len() as u64), text.clone().into_bytes()].concat(),
        Value::List(all) => [vec![head(4, all.len() as u64)], all.iter().map(encode).collect()].concat().concat(),
        Value::Map(fields) => {
            let sorted = fields.is_sorted_by_key(|(name, _)| (name.len(), *name));
            assert!(sorted, "the keys of a map are in order");
            let mut bytes = head(5, fields.len() as u64);
            for (name, value) in fields {
                bytes.extend(head(3, name.len() as u64));
                bytes.extend(name.as_bytes());
                bytes.extend(encode(value));
            }
            bytes
        }
        Value::Flag(flag) => vec![0xf4 + u8::from(*flag)],
    }
}

fn head(kind: u8, number: u64) -> Vec<u8> {
    let bytes = number.to_be_bytes();
    let (info, length) = match number {
        0..24 => return vec![kind << 5 | bytes[7]],
        24..0x100 => (24, 1),
        0x100..0x1_0000 => (25, 2),
        0x1_0000..0x1_0000_0000 => (26, 4),
        _ => (27, 8),
    };
    [&[kind << 5 | info], &bytes[8 - length..]].concat()
}
