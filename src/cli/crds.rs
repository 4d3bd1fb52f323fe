//! `keyferry crds`: the kinds as YAML.

use std::{
    fs,
    io::{self, Write as _},
    path::PathBuf,
};

use anyhow::{Context as _, Result};
use clap::Args;

use crate::crd::manifest;

/// Print the CRDs of this build.
#[derive(Debug, Args)]
pub struct CrdsArgs {
    /// Write one file per kind into this folder instead of printing them all
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Prints or writes them.
///
/// # Errors
/// When standard output or a file cannot be written.
pub fn run(args: &CrdsArgs) -> Result<()> {
    for manifest in manifest::all() {
        let document = manifest::yaml(&manifest)?;
        if let Some(dir) = &args.dir {
            let path = dir.join(&manifest.file);
            fs::write(&path, document).with_context(|| format!("cannot write {}", path.display()))?;
        } else {
            write!(io::stdout(), "{document}").context("cannot write to standard output")?;
        }
    }
    Ok(())
}
