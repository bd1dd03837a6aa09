//! Carries out what a station asks for: checks its role, delegates, and answers.

use std::time::Duration;

use proto::limits::MAX_PAYLOAD_BYTES;
use proto::message::{Answer, Command, FromCamera, Message, Role, StationInfo, cut_text};
use proto::recovery::{Request, Response};
use proto::report::Event;

use super::access_control::CODE_VALID;
use super::context::LinkContext;
use super::files::{OutgoingFile, list};
use super::outbox::{ChunkedAnswer, Outbox, SnapshotChunks};
use super::permission;
use crate::error_text::one_line;
use crate::model::error::UpdateError;

/// Longest wait for the record of a change to be on the disk.
const RECORDED_WITHIN: Duration = Duration::from_secs(5);

/// The station that asks.
pub(super) struct Requester<'a> {
    pub(super) context: &'a LinkContext,
    /// Whether the recovery exchange is answered on this link.
    pub(super) recovery: bool,
    pub(super) role: Role,
    pub(super) station: &'a str,
}

impl Requester<'_> {
    /// The reason for refusing a request, if the role is too low for it.
    fn refusal_by_role(&self, needed: Role, what: &str) -> Option<String> {
        if self.role >= needed {
            return None;
        }
        let reason = format!(
            "{what} needs the role {needed}, and this station has the role {}",
            self.role
        );
        self.context
            .access_control
            .report_refusal(self.station, &reason);
        Some(reason)
    }
}

/// Carries out a command and queues the answer. Returns the answer, encoded.
pub(super) fn answer(
    requester: &Requester<'_>,
    id: u32,
    command: Command,
    outbox: &Outbox,
) -> Vec<u8> {
    let (answer, chunked) = carry_out(requester, id, command, outbox);
    let reply = reply(id, answer);
    match chunked {
        Some(chunked) => outbox.put_chunked(reply.clone(), chunked),
        None => outbox.put(reply.clone()),
    }
    reply
}

/// Carries out a command. Returns the answer, and what follows it in pieces.
fn carry_out(
    requester: &Requester<'_>,
    id: u32,
    command: Command,
    outbox: &Outbox,
) -> (Answer, Option<ChunkedAnswer>) {
    let needs = permission::for_command(&command);
    if let Some(reason) = requester.refusal_by_role(needs.role, "this command") {
        return (refused(&reason), None);
    }
    let chunked = matches!(command, Command::Snapshot | Command::FetchFile { .. });
    // Checked before the pictures are encoded, which takes time and memory.
    if chunked && outbox.is_sending() {
        let reason = "the snapshot or file before is still on its way";
        return (refused(reason), None);
    }
    let durable = |answer| durable(requester, needs.changes, answer);
    match command {
        Command::FetchFile {
            kind,
            name,
            offset_bytes,
        } => match OutgoingFile::open(&requester.context.state, kind, &name, offset_bytes) {
            Ok(file) => {
                let answer = Answer::File { bytes: file.bytes };
                (answer, Some(ChunkedAnswer::File(id, file)))
            }
            Err(error) => (refused(&error.to_string()), None),
        },
        Command::ReadSlots
        | Command::ReadStations
        | Command::RevokeStation { .. }
        | Command::OpenPairing { .. }
        | Command::ListFiles { .. } => (durable(answer_link_command(requester, command)), None),
        command => {
            let (answer, pictures) = requester
                .context
                .control
                .execute(requester.station, command);
            let chunks = (!pictures.is_empty())
                .then(|| ChunkedAnswer::Snapshot(SnapshotChunks::new(id, pictures)));
            (durable(answer), chunks)
        }
    }
}

/// The answer to a change that was made: only once its record is on the disk.
fn durable(requester: &Requester<'_>, changes: bool, answer: Answer) -> Answer {
    if !changes || matches!(answer, Answer::Refused { .. }) || is_recorded(requester) {
        return answer;
    }
    refused("the change is in force, but its record is not on the disk, which refuses writes")
}

fn is_recorded(requester: &Requester<'_>) -> bool {
    requester.context.reporter.flush(RECORDED_WITHIN)
}

/// Carries out a command about stations, stored files or package slots.
fn answer_link_command(requester: &Requester<'_>, command: Command) -> Answer {
    let context = requester.context;
    match command {
        Command::ReadSlots => Answer::Slots(context.updater.slot_infos()),
        Command::ReadStations => match context.access_control.access().read() {
            Ok(entries) => Answer::Stations(
                entries
                    .into_iter()
                    .map(|entry| StationInfo {
                        key_id: secure::short_id(&entry.key),
                        name: entry.name,
                        role: entry.role,
                    })
                    .collect(),
            ),
            Err(error) => refused(&one_line(&error)),
        },
        Command::RevokeStation { station, reason } => {
            match context
                .access_control
                .revoke(&station, &reason, requester.station)
            {
                Ok(0) => refused(&format!("no station {station:?} has access")),
                Ok(_) => Answer::Done,
                Err(error) => refused(&one_line(&error)),
            }
        }
        Command::OpenPairing { role } => match context.access_control.open_pairing(role) {
            Ok(code) => {
                context.reporter.event(Event::SettingChanged {
                    setting: "pairing".to_owned(),
                    before: "closed".to_owned(),
                    after: format!("open for the role {role}"),
                    reason: String::new(),
                    station: cut_text(requester.station),
                });
                Answer::Pairing {
                    code: code.to_string(),
                    valid_s: CODE_VALID.as_secs() as u32,
                }
            }
            Err(error) => refused(&format!("cannot write the pairing code: {error}")),
        },
        Command::ListFiles { kind, after } => match list(&context.state, kind, &after) {
            Ok(files) => Answer::Files(files),
            Err(error) => refused(&error.to_string()),
        },
        _ => refused("this cannot be asked for here"),
    }
}

fn refused(reason: &str) -> Answer {
    let reason = cut_text(reason);
    Answer::Refused { reason }
}

/// Encodes a reply. A reply that no station could read becomes a refusal: a mask from the
/// configuration, for example, has no size limit.
fn reply(id: u32, answer: Answer) -> Vec<u8> {
    let reply = FromCamera::Reply { id, answer };
    let payload = reply.encode();
    let why = match reply.check() {
        Err(error) => error.to_string(),
        Ok(()) if payload.len() > MAX_PAYLOAD_BYTES => format!("{} bytes", payload.len()),
        Ok(()) => return payload,
    };
    let answer = refused(&format!("the answer is too long for a message: {why}"));
    FromCamera::Reply { id, answer }.encode()
}

/// Answers a request of the recovery exchange.
pub(super) fn recover(requester: &Requester<'_>, request: &Request) -> Response {
    let context = requester.context;
    if !requester.recovery {
        let reason =
            "the recovery exchange is not answered on this line: link.serial.recovery".to_owned();
        return Response::Refused { reason };
    }
    let needed = permission::for_recovery(request);
    if let Some(reason) = requester.refusal_by_role(needed, "changing the package") {
        return Response::Refused { reason };
    }
    let (updater, station) = (&context.updater, requester.station);
    let (control, reporter) = (&context.control, &context.reporter);
    let next_offset = |offset_bytes| Response::Continue { offset_bytes };
    let done = |()| Response::Done;
    let response = match request {
        Request::Identify => {
            return Response::Identity {
                boot: context.boot,
                camera: context.camera.clone(),
                program: env!("CARGO_PKG_VERSION").to_owned(),
            };
        }
        Request::Slots => return Response::Slots(updater.slots()),
        Request::FlashBegin {
            total_bytes,
            sha256,
        } => updater
            .flash_begin(station, *total_bytes, *sha256)
            .map(next_offset),
        Request::FlashChunk {
            offset_bytes,
            bytes,
        } => updater
            .flash_chunk(station, *offset_bytes, bytes)
            .map(next_offset),
        Request::FlashEnd => updater.flash_end(station, control, reporter).map(done),
        Request::Confirm => updater.confirm(station, control, reporter).map(done),
        Request::RollBack => updater
            .roll_back(station, "asked for", control, reporter)
            .map(done),
    };
    if matches!(response, Ok(Response::Done)) && !is_recorded(requester) {
        tracing::warn!("the record of a change of the package is not on the disk yet");
    }
    response.unwrap_or_else(|error| refusal(&error))
}

/// Takes a compressed piece of a package.
pub(super) fn flash_deflated(
    requester: &Requester<'_>,
    offset_bytes: u64,
    plain_bytes: u32,
    deflated: &[u8],
) -> Response {
    if let Some(reason) = requester.refusal_by_role(Role::Engineer, "changing the package") {
        return Response::Refused { reason };
    }
    let taken = requester.context.updater.flash_deflated(
        requester.station,
        offset_bytes,
        plain_bytes,
        deflated,
    );
    match taken {
        Ok(offset_bytes) => Response::Continue { offset_bytes },
        Err(error) => refusal(&error),
    }
}

fn refusal(error: &UpdateError) -> Response {
    Response::Refused {
        reason: cut_text(&one_line(error)),
    }
}
