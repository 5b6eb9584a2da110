//! `peer show`: what this node has of a package.

use crate::client::{Client, encoded};
use crate::exit::{Exit, Failure};
use crate::output::Output;
use clap::Args;
use daemon::api_builds::{Binpkg, BinpkgReject, ShowAnswer, ShownDistfile};

/// Show the binary packages and distfiles of an atom.
#[derive(Debug, Args)]
#[command(long_about = "Show the binary packages and distfiles of an atom.\n\n\
    Prints `binpkg CPV BUILD_ID SLOT REPOSITORY SIZE BUILDER DIGEST FINGERPRINT USE…` for each binary package in the \
    binhost, BUILDER being `here` or a peer id and BUILD_ID `-` if it has none; below it `unusable CPV DIGEST KIND: WHY` \
    for each reason why this machine cannot use it, so that it is not listed; and `distfile NAME SIZE here|away DIGEST` \
    for each distfile that the Manifest names. Ends with 1 when there is neither.")]
pub(crate) struct ShowArgs {
    /// Which package: an atom
    #[arg(value_name = "ATOM")]
    atom: String,
    /// Of another machine of the group, by its name or key
    #[arg(long, value_name = "NAME")]
    domain: Option<String>,
}

pub(crate) async fn run(args: &ShowArgs, client: &Client, out: &Output) -> Result<Exit, Failure> {
    let of = args.domain.as_ref().map_or_else(String::new, |name| format!("&domain={}", encoded(name)));
    let path = format!("/v1/show?atom={}{of}", encoded(&args.atom));
    let shown: ShowAnswer = client.get(&format!("show {}", args.atom), &path).await?;
    if out.json() {
        out.object(&shown)?;
    } else {
        for binpkg in &shown.binpkgs {
            out.fact(&binpkg_line(binpkg))?;
            binpkg.rejects.iter().try_for_each(|reject| out.fact(&reject_line(binpkg, reject)))?;
        }
        shown.distfiles.iter().try_for_each(|distfile| out.fact(&distfile_line(distfile)))?;
    }
    shown.notes.iter().for_each(|note| out.say(&format!("note: {note}")));
    if shown.binpkgs.is_empty() && shown.distfiles.is_empty() {
        out.complain(&format!("peer: {} names nothing that is known here", args.atom));
        return Ok(Exit::No);
    }
    Ok(Exit::Done)
}

fn binpkg_line(binpkg: &Binpkg) -> String {
    let build_id = binpkg.build_id.map_or("-".to_owned(), |id| id.to_string());
    let builder = binpkg.builder.as_deref().unwrap_or("here");
    let (slot, repo, size, digest, recipe) =
        (&binpkg.slot, &binpkg.repo, binpkg.size, &binpkg.digest, &binpkg.fingerprint);
    let flags: String = binpkg.use_flags.iter().map(|flag| format!(" {flag}")).collect();
    format!("binpkg {} {build_id} {slot} {repo} {size} {builder} {digest} {recipe}{flags}", binpkg.cpv)
}

fn reject_line(binpkg: &Binpkg, reject: &BinpkgReject) -> String {
    format!("unusable {} {} {}: {}", binpkg.cpv, binpkg.digest, reject.kind, reject.text)
}

fn distfile_line(distfile: &ShownDistfile) -> String {
    let place = if distfile.held { "here" } else { "away" };
    format!("distfile {} {} {place} {}", distfile.name, distfile.size, distfile.digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binary_package_is_one_line_with_a_fixed_number_of_words_before_its_use_flags() {
        let mut binpkg = Binpkg {
            cpv: "app-misc/one-1.0".to_owned(),
            repo: "main".to_owned(),
            slot: "0/0".to_owned(),
            build_id: Some(2),
            use_flags: vec!["nls".to_owned(), "ssl".to_owned()],
            size: 12_288,
            digest: "dd".to_owned(),
            fingerprint: "ff".to_owned(),
            image: "ii".to_owned(),
            builder: None,
            added_at: 1,
            usable: true,
            rejects: Vec::new(),
        };
        assert_eq!(binpkg_line(&binpkg), "binpkg app-misc/one-1.0 2 0/0 main 12288 here dd ff nls ssl");
        (binpkg.build_id, binpkg.builder, binpkg.use_flags) = (None, Some("12D3KooWx".to_owned()), Vec::new());
        assert_eq!(binpkg_line(&binpkg), "binpkg app-misc/one-1.0 - 0/0 main 12288 12D3KooWx dd ff");
    }

    #[test]
    fn a_reason_names_its_package() {
        let reject = BinpkgReject { kind: "cpu".to_owned(), text: "this processor does not have avx2".to_owned() };
        let binpkg = Binpkg { cpv: "a/b-1".to_owned(), digest: "dd".to_owned(), ..Binpkg::default() };
        assert_eq!(reject_line(&binpkg, &reject), "unusable a/b-1 dd cpu: this processor does not have avx2");
    }

    #[test]
    fn a_distfile_says_whether_it_is_here() {
        let distfile = |held| ShownDistfile { name: "one.tar".to_owned(), size: 7, digest: "dd".to_owned(), held };
        assert_eq!(distfile_line(&distfile(true)), "distfile one.tar 7 here dd");
        assert_eq!(distfile_line(&distfile(false)), "distfile one.tar 7 away dd");
    }
}
