//! What the next open puts right after a crash: the moves that the index noted, and names in `incoming/` that nobody needs.
//!
//! Few by nature: a move is noted for each writer or removal that was under way, and partials are not many.

use std::io;

use crate::disk::At as _;
use crate::record::MoveRecord;
use crate::{Inner, OpenStoreError};

pub(crate) fn recover(inner: &Inner) -> Result<(), OpenStoreError> {
    for (digest, noted) in inner.index.moves()? {
        let place = inner.layout.blob(&digest);
        let held = inner.index.blob(&digest)?.is_some();
        match noted {
            // The bytes were verified and synced before the note was; only the name may be missing.
            MoveRecord::Arriving(record) if !held => {
                let arrived = inner.disk.open_read(&place).and_then(|file| file.metadata());
                if arrived.is_ok_and(|metadata| metadata.len() == record.size) {
                    let dir = inner.layout.blob_dir(&digest);
                    inner.disk.sync_dir(&dir).at(&dir)?;
                    inner.index.settle(&digest, record, true)?;
                    continue;
                }
            }
            MoveRecord::Leaving if !held => match inner.disk.remove(&place) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).at(&place)?,
                _ => {}
            },
            MoveRecord::Arriving(_) | MoveRecord::Leaving => {}
        }
        inner.index.end_move(&digest)?;
    }
    let dir = inner.layout.incoming_dir();
    for file in inner.disk.list(&dir).at(&dir)? {
        let digest = file.name.to_str().and_then(|name| name.parse().ok());
        let wanted = match digest {
            Some(digest) => inner.index.blob(&digest)?.is_none(),
            None => false,
        };
        if !wanted {
            let path = dir.join(&file.name);
            inner.disk.remove(&path).at(&path)?;
        }
    }
    Ok(())
}
