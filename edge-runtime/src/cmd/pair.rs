//! `edge-runtime pair` and `edge-runtime stations`: manages access on the camera itself.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use edge_runtime::config::Config;
use edge_runtime::link::access_control::{
    ACCESS_FILE, CODE_VALID, KEY_FILE, TICKET_FILE, issue_code,
};
use proto::message::Role;
use secure::access::Access;
use secure::identity::Identity;
use secure::pairing::Tickets;

/// Print a one-time code with which a station can be paired.
///
/// The code is valid for ten minutes, one station and five attempts. A running camera accepts it at
/// once; it need not be restarted.
#[derive(Args)]
pub(crate) struct Pair {
    /// The camera's configuration file.
    #[arg(long)]
    config: PathBuf,
    /// What the station may do: `watch` (see everything), `operate` (also run the golden-sample
    /// check and change the mode) or `engineer` (everything).
    #[arg(long, default_value = "engineer")]
    role: Role,
}

impl Pair {
    pub(crate) fn run(&self) -> Result<()> {
        let config = Config::read(&self.config)?;
        let identity = Identity::load_or_create(&config.state.join(KEY_FILE))?;
        let tickets = Tickets::at(&config.state.join(TICKET_FILE));
        let code =
            issue_code(&tickets, self.role).context("cannot write a code into the state folder")?;
        println!("{code}");
        let address = config
            .link
            .tcp
            .map_or_else(|| "HOST:PORT".to_owned(), |address| address.to_string());
        eprintln!(
            "valid for {} min, role {}; at the station: station pair {address} --code {code}",
            CODE_VALID.as_secs() / 60,
            self.role
        );
        eprintln!("this camera's key: {}", secure::key_id(identity.public()));
        Ok(())
    }
}

/// List or revoke the stations that have access to this camera.
#[derive(Args)]
pub(crate) struct Stations {
    #[command(subcommand)]
    command: StationsCommand,
}

#[derive(Subcommand)]
enum StationsCommand {
    /// List the name, role and key id of each station.
    List {
        /// The camera's configuration file.
        #[arg(long)]
        config: PathBuf,
    },
    /// Revoke the access of a station from now on.
    Revoke {
        /// The camera's configuration file.
        #[arg(long)]
        config: PathBuf,
        /// Name or key id of the station.
        station: String,
    },
}

impl Stations {
    pub(crate) fn run(&self) -> Result<()> {
        match &self.command {
            StationsCommand::List { config } => {
                let access = Access::at(&Config::read(config)?.state.join(ACCESS_FILE));
                for entry in access.read()? {
                    let id = secure::key_id(&entry.key);
                    println!("{}  role {}  key {id}", entry.name, entry.role);
                }
                Ok(())
            }
            StationsCommand::Revoke { config, station } => {
                let access = Access::at(&Config::read(config)?.state.join(ACCESS_FILE));
                if access.revoke(station)?.is_empty() {
                    bail!("no station {station:?} has access");
                }
                Ok(())
            }
        }
    }
}
