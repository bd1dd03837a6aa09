//! The recovery exchange: enough to identify a camera, to give it a package and to roll back.
//! **Frozen**: its bytes never change, so that a station of any version can rescue a camera of any
//! version.
//!
//! The layout is fixed. Integers are little-endian. Payloads travel in the same frames as every
//! message:
//!
//! ```text
//! 0xA5  0x01  operation  body
//! ```
//! No ordinary message begins with 0xA5: as the first byte of a postcard enum it would announce a
//! variant above 127. Each variant's documentation begins with its operation number.

use alloc::string::String;
use alloc::vec::Vec;

use crate::limits::{MAX_CHUNK_BYTES, MAX_TEXT_BYTES};
use crate::text::cut_text;

/// First byte of every recovery payload.
pub const MARK: u8 = 0xa5;
/// Second byte: the version of the layout.
pub const FORMAT: u8 = 1;

/// What a station asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// 0: ask for the camera's identity.
    Identify,
    /// 1: ask what is in the slots.
    Slots,
    /// 2: begin or resume a flash into the inactive slot. Body: `total_bytes` u64, `sha256` 32
    /// bytes.
    FlashBegin {
        /// Length of the package.
        total_bytes: u64,
        /// Its SHA-256.
        sha256: [u8; 32],
    },
    /// 3: a piece of the package. Body: `offset_bytes` u64, then bytes to the end of the payload.
    FlashChunk {
        /// Offset of the bytes in the package.
        offset_bytes: u64,
        /// The bytes, at most [`MAX_CHUNK_BYTES`].
        bytes: Vec<u8>,
    },
    /// 4: verify the flashed package and put it on trial.
    FlashEnd,
    /// 5: keep the package on trial.
    Confirm,
    /// 6: make the other slot active.
    RollBack,
}

/// What a camera answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Response {
    /// 0: the camera's identity. Body: `boot` u32, then name and program version, each as u16
    /// length and UTF-8.
    Identity {
        /// Boot counter: how many times the program has been started.
        boot: u32,
        /// Name of the camera.
        camera: String,
        /// Version of its program.
        program: String,
    },
    /// 1: the slots. Body, for each slot: state u8, `sha256` 32 bytes.
    Slots([SlotStatus; 2]),
    /// 2: continue from this offset. Body: `offset_bytes` u64.
    Continue {
        /// Offset in the package.
        offset_bytes: u64,
    },
    /// 3: done.
    Done,
    /// 4: not done. Body: the reason as u16 length and UTF-8.
    Refused {
        /// The reason, as text.
        reason: String,
    },
}

/// What one of the two package slots holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotStatus {
    /// Its state.
    pub state: SlotState,
    /// SHA-256 of the package; zero where there is none.
    pub sha256: [u8; 32],
}

/// State of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotState {
    /// 0: no complete package.
    Empty,
    /// 1: a verified package.
    Ready,
    /// 2: the active package.
    Active,
    /// 3: active until the program ends, unless confirmed.
    Trial,
}

/// A payload is not a recovery message: wrong mark, unknown operation, wrong length, or text that
/// is not UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidRecovery;

impl core::fmt::Display for InvalidRecovery {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("not a recovery message of the frozen layout")
    }
}

impl core::error::Error for InvalidRecovery {}

impl Request {
    /// Encodes the request as a payload.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::from([MARK, FORMAT]);
        match self {
            Self::Identify => out.push(0),
            Self::Slots => out.push(1),
            Self::FlashBegin {
                total_bytes,
                sha256,
            } => {
                out.push(2);
                out.extend_from_slice(&total_bytes.to_le_bytes());
                out.extend_from_slice(sha256);
            }
            Self::FlashChunk {
                offset_bytes,
                bytes,
            } => {
                out.push(3);
                out.extend_from_slice(&offset_bytes.to_le_bytes());
                out.extend_from_slice(bytes);
            }
            Self::FlashEnd => out.push(4),
            Self::Confirm => out.push(5),
            Self::RollBack => out.push(6),
        }
        out
    }

    /// Decodes a payload.
    pub fn decode(payload: &[u8]) -> Result<Self, InvalidRecovery> {
        let (operation, mut body) = open(payload)?;
        let request = match operation {
            0 => Self::Identify,
            1 => Self::Slots,
            2 => Self::FlashBegin {
                total_bytes: u64::from_le_bytes(take(&mut body)?),
                sha256: take(&mut body)?,
            },
            3 => {
                let offset_bytes = u64::from_le_bytes(take(&mut body)?);
                let bytes = core::mem::take(&mut body);
                if bytes.len() > MAX_CHUNK_BYTES {
                    return Err(InvalidRecovery);
                }
                Self::FlashChunk {
                    offset_bytes,
                    bytes: bytes.into(),
                }
            }
            4 => Self::FlashEnd,
            5 => Self::Confirm,
            6 => Self::RollBack,
            _ => return Err(InvalidRecovery),
        };
        end(body, request)
    }
}

impl Response {
    /// Encodes the response as a payload. Texts longer than [`MAX_TEXT_BYTES`] are cut.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::from([MARK, FORMAT]);
        match self {
            Self::Identity {
                boot,
                camera,
                program,
            } => {
                out.push(0);
                out.extend_from_slice(&boot.to_le_bytes());
                put_text(&mut out, camera);
                put_text(&mut out, program);
            }
            Self::Slots(slots) => {
                out.push(1);
                for slot in slots {
                    out.push(match slot.state {
                        SlotState::Empty => 0,
                        SlotState::Ready => 1,
                        SlotState::Active => 2,
                        SlotState::Trial => 3,
                    });
                    out.extend_from_slice(&slot.sha256);
                }
            }
            Self::Continue { offset_bytes } => {
                out.push(2);
                out.extend_from_slice(&offset_bytes.to_le_bytes());
            }
            Self::Done => out.push(3),
            Self::Refused { reason } => {
                out.push(4);
                put_text(&mut out, reason);
            }
        }
        out
    }

    /// Decodes a payload.
    pub fn decode(payload: &[u8]) -> Result<Self, InvalidRecovery> {
        let (operation, mut body) = open(payload)?;
        let response = match operation {
            0 => Self::Identity {
                boot: u32::from_le_bytes(take(&mut body)?),
                camera: take_text(&mut body)?,
                program: take_text(&mut body)?,
            },
            1 => Self::Slots([take_slot(&mut body)?, take_slot(&mut body)?]),
            2 => Self::Continue {
                offset_bytes: u64::from_le_bytes(take(&mut body)?),
            },
            3 => Self::Done,
            4 => Self::Refused {
                reason: take_text(&mut body)?,
            },
            _ => return Err(InvalidRecovery),
        };
        end(body, response)
    }
}

fn open(payload: &[u8]) -> Result<(u8, &[u8]), InvalidRecovery> {
    match payload {
        [MARK, FORMAT, operation, body @ ..] => Ok((*operation, body)),
        _ => Err(InvalidRecovery),
    }
}

fn end<T>(left: &[u8], value: T) -> Result<T, InvalidRecovery> {
    left.is_empty().then_some(value).ok_or(InvalidRecovery)
}

fn take<const N: usize>(body: &mut &[u8]) -> Result<[u8; N], InvalidRecovery> {
    let (value, rest) = body.split_first_chunk::<N>().ok_or(InvalidRecovery)?;
    *body = rest;
    Ok(*value)
}

fn take_slot(body: &mut &[u8]) -> Result<SlotStatus, InvalidRecovery> {
    let [state] = take(body)?;
    Ok(SlotStatus {
        state: match state {
            0 => SlotState::Empty,
            1 => SlotState::Ready,
            2 => SlotState::Active,
            3 => SlotState::Trial,
            _ => return Err(InvalidRecovery),
        },
        sha256: take(body)?,
    })
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    let text = cut_text(text);
    out.extend_from_slice(&(text.len() as u16).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn take_text(body: &mut &[u8]) -> Result<String, InvalidRecovery> {
    let length = usize::from(u16::from_le_bytes(take(body)?));
    if length > MAX_TEXT_BYTES || length > body.len() {
        return Err(InvalidRecovery);
    }
    let (text, rest) = body.split_at(length);
    *body = rest;
    core::str::from_utf8(text)
        .map(String::from)
        .map_err(|_| InvalidRecovery)
}
