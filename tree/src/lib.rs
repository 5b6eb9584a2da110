//! What things are called: the words of Gentoo and their spelling.
//!
//! The modules stand in reading order; nothing here writes, waits or starts anything, and only `repo`, `set`, `conf` and
//! `sources` read files.

pub mod digest;

pub mod cid;

pub mod size;

pub mod moment;

pub mod name;

pub mod version;

pub mod cpv;

pub mod atom;

pub mod set;

pub mod distfile;

pub mod manifest;

pub mod uri;

pub mod restrict;

pub mod license;

pub mod md5;

pub mod mdcache;

pub mod eclass;

pub mod thirdparty;

pub mod package;

pub mod repo;

pub mod conf;

pub mod shell_words;

pub mod sources;

pub mod binrepos;

pub mod gpkg;

pub mod gpkg_write;

pub mod budget;

pub mod image;

pub mod packages;

pub mod cpu;

pub mod elf;

pub mod elf_links;

mod confine;
mod cpu_table;
mod custom_mirrors;
mod depstring;
#[cfg(test)]
mod elf_made;
mod expand;
mod getconfig;
#[cfg(test)]
mod gpkg_made;
mod gpkg_manifest;
mod gpkg_metadata;
mod gpkg_pax;
mod gpkg_tar;
mod gpkg_zstd;
mod ini;
mod repo_layout;
mod repos_conf;
mod repos_entry;
mod repos_loading;
mod scan;
