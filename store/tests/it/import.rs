//! Files of others that are taken in: as they are, once, and never changed by it.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use store::{FinishError, How, ImportError, ImportOptions, Store, Wanted};

use tree::digest::Digest;

use crate::stage::{bytes_of, content, fresh, options, verify, wanted};

#[test]
fn a_file_is_imported_as_it_is_and_only_once() {
    let (dir, store) = fresh();
    let path = dir.path().join("foo-1.tar.xz");
    let bytes = bytes_of(12, 600_000);
    store::write_atomically(&path, &bytes, 0o644).unwrap();
    let unsized_want = Wanted { size: None, ..wanted(&bytes) };
    let imported = store.import(&path, &unsized_want).unwrap();
    assert!(matches!(imported.how, How::Reflinked | How::Copied));
    assert_eq!(content(&imported.blob), bytes);
    store::write_atomically(&path, b"changed since", 0o644).unwrap();
    assert_eq!(content(&imported.blob), bytes);
    assert_eq!(store.import(&path, &wanted(&bytes)).unwrap().how, How::Present);
    assert_eq!(store::digest_of_file(&path).unwrap().2, 13);
}

#[test]
fn a_file_that_is_not_what_is_wanted_is_left_alone() {
    let (dir, store) = fresh();
    let path = dir.path().join("foo-1.tar.xz");
    store::write_atomically(&path, &bytes_of(13, 1000), 0o664).unwrap();
    let want = wanted(&bytes_of(14, 1000));
    for options in [ImportOptions::default(), ImportOptions { hard_link: true }] {
        let refused = store.import_with(&path, &want, options).unwrap_err();
        assert!(matches!(refused, ImportError::Finish(FinishError::Mismatch { .. })), "{refused}");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o664);
        assert_eq!(fs::read(&path).unwrap(), bytes_of(13, 1000));
    }
    assert!(matches!(
        store.import(&path, &wanted(&bytes_of(14, 999))),
        Err(ImportError::WrongSize { expected: 999, actual: 1000 })
    ));
    assert!(matches!(store.import(dir.path(), &want), Err(ImportError::Source(_))));
    assert_eq!(fs::read_dir(dir.path().join("incoming")).unwrap().count(), 0);
}

#[test]
fn a_hard_link_is_made_only_when_asked_for_and_of_a_file_with_one_name() {
    let (dir, store) = fresh();
    let allowed = ImportOptions { hard_link: true };
    for (seed, names) in [(15, 1), (16, 2)] {
        let path = dir.path().join(format!("foo-{seed}.tar.xz"));
        let bytes = bytes_of(seed, 1000);
        store::write_atomically(&path, &bytes, 0o644).unwrap();
        if names == 2 {
            fs::hard_link(&path, dir.path().join("other-name")).unwrap();
        }
        let imported = store.import_with(&path, &wanted(&bytes), allowed).unwrap();
        assert_eq!(content(&imported.blob), bytes);
        match (imported.how, names) {
            (How::Reflinked, _) | (How::HardLinked, 1) | (How::Copied, 2) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_file_the_daemon_made_is_moved_in_when_its_digest_is_known_only_now() {
    let (dir, store) = fresh();
    let job = dir.path().join("job");
    fs::create_dir(&job).unwrap();
    let (path, bytes) = (job.join("greeter-1.0-1.gpkg.tar"), bytes_of(17, 700_000));
    store::write_atomically(&path, &bytes, 0o600).unwrap();
    let (digest, sha512, size) = store::digest_of_file(&path).unwrap();
    let want = Wanted { digest, size: Some(size), sha512: Some(sha512) };
    let imported = store.import_with(&path, &want, ImportOptions { hard_link: true }).unwrap();
    assert!(matches!(imported.how, How::Reflinked | How::HardLinked));
    fs::remove_dir_all(&job).unwrap();
    let metadata = imported.blob.file().metadata().unwrap();
    assert_eq!((metadata.nlink(), metadata.permissions().mode() & 0o777), (1, 0o444));
    drop(imported);
    drop(store);
    let store = Store::open(dir.path(), options()).unwrap();
    assert_eq!(content(&store.get(&Digest::of(&bytes)).unwrap().unwrap()), bytes);
    assert!(verify(&store).is_sound());
}
