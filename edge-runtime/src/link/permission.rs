//! The role that each request needs.

use proto::message::{Command, Role};
use proto::recovery::Request;

/// The lowest role that may give a command.
pub(super) fn for_command(command: &Command) -> Role {
    match command {
        Command::ReadThreshold
        | Command::ReadMask
        | Command::ReadMode
        | Command::ReadHealth
        | Command::ReadSlots
        | Command::ReadStations
        | Command::ReadSettings
        | Command::Snapshot
        | Command::ListFiles { .. }
        | Command::FetchFile { .. } => Role::Watch,
        Command::SetMode { .. } | Command::GoldenCheck => Role::Operate,
        Command::SetThreshold { .. }
        | Command::SetMask { .. }
        | Command::RevokeStation { .. }
        | Command::OpenPairing { .. } => Role::Engineer,
    }
}

/// Whether a command changes what the camera does. It is answered once its record is on the disk.
pub(super) fn changes(command: &Command) -> bool {
    match command {
        Command::SetThreshold { .. }
        | Command::SetMask { .. }
        | Command::SetMode { .. }
        | Command::RevokeStation { .. }
        | Command::OpenPairing { .. } => true,
        Command::ReadThreshold
        | Command::ReadMask
        | Command::ReadMode
        | Command::ReadHealth
        | Command::ReadSlots
        | Command::ReadStations
        | Command::ReadSettings
        | Command::Snapshot
        | Command::GoldenCheck
        | Command::ListFiles { .. }
        | Command::FetchFile { .. } => false,
    }
}

/// The lowest role that may make a recovery request.
pub(super) fn for_recovery(request: &Request) -> Role {
    match request {
        Request::Identify | Request::Slots => Role::Watch,
        Request::FlashBegin { .. }
        | Request::FlashChunk { .. }
        | Request::FlashEnd
        | Request::Confirm
        | Request::RollBack => Role::Engineer,
    }
}
