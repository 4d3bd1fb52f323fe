//! The program: reads its command line and ends with a code that says how it went.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use keyferry::cli::store::{self, StoreArgs};

/// Ferries secrets from where they live into Kubernetes Secrets, and keeps them fresh.
#[derive(Parser)]
#[command(name = "keyferry", version, propagate_version = false)]
struct Program {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make, fill and read the encrypted file of provider `file`
    Store(StoreArgs),
}

fn main() -> ExitCode {
    let outcome = match Program::parse().command {
        Command::Store(args) => store::run(args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "keyferry: {error:#}");
            ExitCode::FAILURE
        }
    }
}
