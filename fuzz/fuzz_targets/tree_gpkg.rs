//! A binary package: the first byte says which part of it the rest is, so that the digests of the others fit. What is read
//! can be written anew and reads the same.
#![no_main]

use std::io::Cursor;

use libfuzzer_sys::fuzz_target;
use tree::digest::{Digest, Sha512};
use tree::elf_links::read_links;
use tree::gpkg::Gpkg;
use tree::gpkg_write::rewrite;
use tree::image::Image;

fn tar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (path, content) in members {
        let mut header = [0; 512];
        header[..path.len()].copy_from_slice(path.as_bytes());
        header[100..107].copy_from_slice(b"0000644");
        header[108..115].copy_from_slice(b"0000000");
        header[116..123].copy_from_slice(b"0000000");
        header[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
        header[136..147].copy_from_slice(b"00000000000");
        header[148..156].copy_from_slice(b"        ");
        header[156] = b'0';
        header[257..265].copy_from_slice(b"ustar\x0000");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        archive.extend_from_slice(&header);
        archive.extend_from_slice(content);
        archive.resize(archive.len().next_multiple_of(512), 0);
    }
    archive.resize(archive.len() + 1024, 0);
    archive
}

fn package(metadata: (&str, &[u8]), image: (&str, &[u8]), manifest: Option<&[u8]>) -> Vec<u8> {
    let members: [(&str, &[u8]); 3] = [("gpkg-1", b""), metadata, image];
    let lines: String = members
        .iter()
        .map(|(name, bytes)| {
            format!("DATA {name} {} SHA512 {} BLAKE2B {}\n", bytes.len(), Sha512::of(bytes), Digest::of(bytes))
        })
        .collect();
    let paths: Vec<(String, &[u8])> = members
        .into_iter()
        .chain([("Manifest", manifest.unwrap_or(lines.as_bytes()))])
        .map(|(name, bytes)| (format!("a-1-1/{name}"), bytes))
        .collect();
    let members: Vec<(&str, &[u8])> = paths.iter().map(|(path, bytes)| (path.as_str(), *bytes)).collect();
    tar(&members)
}

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, rest)) = bytes.split_first() else { return };
    let metadata = tar(&[("metadata/CATEGORY", b"a"), ("metadata/PF", b"a-1")]);
    let image = tar(&[("image/a", b"x")]);
    let container = match kind {
        b'm' => package(("metadata.tar", rest), ("image.tar", &image), None),
        b'M' => package(("metadata.tar.zst", rest), ("image.tar", &image), None),
        b'i' => package(("metadata.tar", &metadata), ("image.tar", rest), None),
        b'I' => package(("metadata.tar", &metadata), ("image.tar.zst", rest), None),
        b'l' => package(("metadata.tar", &metadata), ("image.tar", &image), Some(rest)),
        _ => rest.to_vec(),
    };
    let Ok(gpkg) = Gpkg::read(Cursor::new(&container)) else { return };
    let image = Image::read(Cursor::new(&container), &gpkg);
    let mut written = Vec::new();
    rewrite(Cursor::new(&container), &gpkg, &mut written, None).expect("what was read is written");
    let again = Gpkg::read(Cursor::new(&written)).expect("what is written is read");
    assert_eq!((&again.basename, &again.metadata), (&gpkg.basename, &gpkg.metadata));
    assert!(!again.signed);
    // What is in it is looked into whatever its image is.
    let _links = read_links(Cursor::new(&container), &gpkg, || Ok(Cursor::new(Vec::new())));
    if let Ok(image) = image {
        let second = Image::read(Cursor::new(&written), &again).expect("it is the same image");
        assert_eq!(image.digest(), second.digest());
        assert!(image.differences(&second, 1).is_empty());
    }
});
