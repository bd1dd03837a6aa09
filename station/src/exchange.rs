//! The recovery exchange over a link that may lose a frame. Its answers carry no numbers, but they
//! come in the order of the requests: when an answer is late, the camera is asked for its identity.
//! If that comes without the answer before it, the request or its answer was lost.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use proto::message::FromCamera;
use proto::recovery::{Request, Response, SlotStatus};

use crate::client::{ANSWER_WITHIN, Client, Received, Refused};
use crate::serial_line::Retry;

/// After the camera has answered, time without a further answer after which none is on its way.
const QUIET: Duration = Duration::from_millis(500);

impl Client {
    /// Sends a request and waits for its answer; a refusal is an error. `None` if the request or
    /// its answer was lost on a serial line.
    pub(crate) fn exchange(&mut self, request: &Request) -> Result<Option<Response>> {
        self.request(request)?;
        let answer = match self.receive_response(0)? {
            None => self.fence()?,
            answer => answer,
        };
        answer.map(accepted).transpose()
    }

    /// As [`Self::exchange`], for a request that may be carried out more than once.
    pub(crate) fn exchange_again(&mut self, request: &Request) -> Result<Response> {
        let deadline = Instant::now() + ANSWER_WITHIN;
        while Instant::now() < deadline {
            if let Some(response) = self.exchange(request)? {
                return Ok(response);
            }
        }
        bail!(does_not_answer())
    }

    /// Carries out a request that changes the slots, and not twice: if no answer comes, the slots
    /// tell whether it was carried out.
    pub(crate) fn change(&mut self, request: &Request) -> Result<()> {
        let before = match self.line {
            Some(_) => Some(self.slot_states()?),
            None => None,
        };
        let deadline = Instant::now() + ANSWER_WITHIN;
        while Instant::now() < deadline {
            match self.exchange(request)? {
                Some(Response::Done) => return Ok(()),
                Some(other) => bail!("unexpected answer from the camera: {other:?}"),
                None if Some(self.slot_states()?) != before => return Ok(()),
                None => {}
            }
        }
        bail!(does_not_answer())
    }

    /// What is in the slots.
    pub(crate) fn slot_states(&mut self) -> Result<[SlotStatus; 2]> {
        match self.exchange_again(&Request::Slots)? {
            Response::Slots(slots) => Ok(slots),
            _ => bail!("expected the camera's slots, found another answer"),
        }
    }

    /// Waits for an answer. `None` if it does not come in time on a serial line on which `bytes` and
    /// it are under way.
    pub(crate) fn receive_response(&mut self, bytes: usize) -> Result<Option<Response>> {
        let within = self.line.map(|line| line.answer_within(bytes));
        self.response_within(within.unwrap_or(ANSWER_WITHIN))
            .and_then(|response| match (response, self.line) {
                (None, None) => bail!(does_not_answer()),
                (response, _) => Ok(response),
            })
    }

    /// Asks for the camera's identity until it comes, and until no answer is on its way any more.
    /// Returns what was answered before it.
    pub(crate) fn fence(&mut self) -> Result<Option<Response>> {
        let mut retry = match self.line {
            Some(line) => Retry::new(line, 0),
            None => return Ok(None),
        };
        let deadline = Instant::now() + ANSWER_WITHIN;
        let (mut asked, mut told) = (1, 0);
        let mut answer = None;
        self.request(&Request::Identify)?;
        while told == 0 {
            match self.response_within(Duration::ZERO)? {
                Some(Response::Identity { .. }) => told += 1,
                Some(response) => answer = Some(response),
                None if Instant::now() > deadline => bail!(does_not_answer()),
                None if retry.is_due() => {
                    // On a line without the recovery exchange, this is refused too.
                    if matches!(answer, Some(Response::Refused { .. })) {
                        return Ok(answer);
                    }
                    asked += 1;
                    self.request(&Request::Identify)?;
                }
                None => {}
            }
        }
        // The camera answers all that wait for it at once.
        while told < asked {
            match self.response_within(QUIET)? {
                Some(_) => told += 1,
                None => break,
            }
        }
        Ok(answer)
    }

    /// Waits this long for an answer, and at least for one message.
    fn response_within(&mut self, within: Duration) -> Result<Option<Response>> {
        let deadline = Instant::now() + within;
        loop {
            match self.receive()? {
                Some(Received::Recovery(response)) => return Ok(Some(response)),
                Some(Received::Message(message)) => {
                    if let FromCamera::Goodbye { reason } = *message {
                        bail!("the camera ended the link: {reason}");
                    }
                }
                None => {}
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
        }
    }
}

/// An answer that is not a refusal.
pub(crate) fn accepted(response: Response) -> Result<Response> {
    match response {
        Response::Refused { reason } => Err(Refused(reason).into()),
        response => Ok(response),
    }
}

fn does_not_answer() -> String {
    format!(
        "the camera does not answer within {} s",
        ANSWER_WITHIN.as_secs()
    )
}
