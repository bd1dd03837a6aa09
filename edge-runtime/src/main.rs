//! `edge-runtime`: see `edge-runtime --help`.

#![forbid(unsafe_code)]

mod cmd;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Exit code when a defect was found; a failure is 2.
const EXIT_NG: u8 = 1;
/// Exit code when something could not be done, so that no verdict stands for it.
const EXIT_FAILURE: u8 = 2;

/// The camera's program: captures frames, scores surfaces with a model package, drives the reject gate and reports.
///
/// Model packages are made by `host-trainer package`. Results go to standard output, everything else to standard
/// error. Exit codes: 0 nothing found, 1 a defect was found, 2 something failed.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Score(Box<cmd::score::Score>),
    Run(cmd::run::Run),
    Record(cmd::record::Record),
    Bench(cmd::bench::Bench),
    Pair(cmd::pair::Pair),
    Stations(cmd::pair::Stations),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Score(score) => score.run().map(|outcome| match outcome {
            cmd::score::Outcome::AllOk => ExitCode::SUCCESS,
            cmd::score::Outcome::SomeNg => ExitCode::from(EXIT_NG),
            cmd::score::Outcome::SomeFailed => ExitCode::from(EXIT_FAILURE),
        }),
        Command::Run(run) => run.run().map(|()| ExitCode::SUCCESS),
        Command::Record(record) => record.run().map(|()| ExitCode::SUCCESS),
        Command::Bench(bench) => bench.run().map(|()| ExitCode::SUCCESS),
        Command::Pair(pair) => pair.run().map(|()| ExitCode::SUCCESS),
        Command::Stations(stations) => stations.run().map(|()| ExitCode::SUCCESS),
    };
    done.unwrap_or_else(|error| {
        cmd::report(&error);
        ExitCode::from(EXIT_FAILURE)
    })
}
