//! A restricted reader of pickles: enough for PyTorch's state dicts, and nothing that could run code.
//!
//! A pickle is a program for a stack machine. This one knows the opcodes that a state dict needs, and calls nothing:
//! of the functions that a pickle may name, three are understood as data (`OrderedDict`, `_rebuild_tensor_v2`,
//! `_rebuild_parameter`); any other is refused by name. Every length is checked against the bytes that are there.

use std::collections::HashMap;
use std::rc::Rc;

/// Most values on the stack or in the memo: far beyond any state dict, far below trouble.
const MAX_VALUES: usize = 1_000_000;

/// Why a pickle is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PickleError {
    /// It ends in the middle.
    #[error("the pickle is cut off at byte {0}")]
    CutOff(usize),
    /// An opcode that no state dict needs.
    #[error("pickle opcode 0x{code:02x} at byte {at} is not one that a state dict needs")]
    Opcode {
        /// The opcode.
        code: u8,
        /// Where.
        at: usize,
    },
    /// A function that is not data.
    #[error("refused to execute {0}: a file of weights has no use for it")]
    Refused(String),
    /// Operands that do not fit.
    #[error("the pickle is malformed at byte {at}: expected {expected}")]
    Malformed {
        /// Where.
        at: usize,
        /// What should have been there.
        expected: &'static str,
    },
    /// More values than any state dict has.
    #[error("the pickle holds more than {MAX_VALUES} values")]
    TooMany,
}

/// A value; compound ones are shared, so that a memo costs nothing.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    None,
    Bool(bool),
    Int(i64),
    Text(Rc<str>),
    Tuple(Rc<[Value]>),
    /// A list or dict under construction is not shared; state dicts do not need it to be.
    List(Vec<Value>),
    Dict(Vec<(Value, Value)>),
    /// `module.name`, not called.
    Global(Rc<str>),
    /// What PyTorch's persistent ids hold.
    Persistent(Rc<Value>),
    /// A tensor: its storage and the arguments that place it there.
    Tensor(Rc<[Value]>),
    Mark,
}

/// Reads one pickle; returns its value and how many bytes it took.
pub(super) fn read(bytes: &[u8]) -> Result<(Value, usize), PickleError> {
    let mut machine = Machine {
        bytes,
        at: 0,
        stack: Vec::new(),
        memo: HashMap::new(),
    };
    loop {
        if let Some(value) = machine.step()? {
            return Ok((value, machine.at));
        }
        if machine.stack.len() > MAX_VALUES || machine.memo.len() > MAX_VALUES {
            return Err(PickleError::TooMany);
        }
    }
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    stack: Vec<Value>,
    memo: HashMap<u32, Value>,
}

impl Machine<'_> {
    fn take(&mut self, count: usize) -> Result<&[u8], PickleError> {
        let end = self
            .at
            .checked_add(count)
            .filter(|&end| end <= self.bytes.len());
        let end = end.ok_or(PickleError::CutOff(self.bytes.len()))?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn number<const N: usize>(&mut self) -> Result<[u8; N], PickleError> {
        let mut number = [0; N];
        number.copy_from_slice(self.take(N)?);
        Ok(number)
    }

    fn malformed<T>(&self, expected: &'static str) -> Result<T, PickleError> {
        Err(PickleError::Malformed {
            at: self.at,
            expected,
        })
    }

    fn pop(&mut self) -> Result<Value, PickleError> {
        match self.stack.pop() {
            Some(Value::Mark) | None => self.malformed("a value on the stack"),
            Some(value) => Ok(value),
        }
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Value>, PickleError> {
        match self.stack.iter().rposition(|value| *value == Value::Mark) {
            Some(mark) => {
                let values = self.stack.split_off(mark + 1);
                self.stack.pop();
                Ok(values)
            }
            None => self.malformed("a mark on the stack"),
        }
    }

    fn text(&mut self, length: usize) -> Result<Value, PickleError> {
        let bytes = self.take(length)?.to_vec();
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Value::Text(text.into())),
            Err(_) => self.malformed("UTF-8 text"),
        }
    }

    fn line(&mut self) -> Result<String, PickleError> {
        let rest = &self.bytes[self.at..];
        let Some(length) = rest.iter().position(|&byte| byte == b'\n') else {
            return Err(PickleError::CutOff(self.bytes.len()));
        };
        let line = String::from_utf8_lossy(&rest[..length]).into_owned();
        self.at += length + 1;
        Ok(line)
    }

    fn insert(&mut self, pairs: Vec<Value>) -> Result<(), PickleError> {
        if !pairs.len().is_multiple_of(2) {
            return self.malformed("keys with values");
        }
        let mut pairs = pairs.into_iter();
        let mut entries = Vec::new();
        while let (Some(key), Some(value)) = (pairs.next(), pairs.next()) {
            entries.push((key, value));
        }
        match self.stack.last_mut() {
            Some(Value::Dict(dict)) => {
                dict.append(&mut entries);
                Ok(())
            }
            _ => self.malformed("a dict to fill"),
        }
    }

    /// The only calls that mean anything; each merely arranges its arguments.
    fn call(&mut self) -> Result<(), PickleError> {
        let arguments = self.pop()?;
        let function = self.pop()?;
        let (Value::Global(name), Value::Tuple(arguments)) = (function, arguments) else {
            return self.malformed("a function and its arguments");
        };
        let result = match (&*name, &*arguments) {
            ("collections.OrderedDict", []) => Value::Dict(Vec::new()),
            ("torch._utils._rebuild_tensor_v2", [_, _, _, _, ..]) => Value::Tensor(arguments),
            ("torch._utils._rebuild_parameter", [tensor @ Value::Tensor(_), ..]) => tensor.clone(),
            _ => return Err(PickleError::Refused(name.to_string())),
        };
        self.stack.push(result);
        Ok(())
    }

    fn remember(&mut self, slot: u32) -> Result<(), PickleError> {
        match self.stack.last() {
            // Containers are filled after they are memoised, and a state dict never refers back to one.
            Some(Value::Dict(_) | Value::List(_) | Value::Mark) => Ok(()),
            Some(value) => {
                self.memo.insert(slot, value.clone());
                Ok(())
            }
            None => self.malformed("a value to remember"),
        }
    }

    fn recall(&mut self, slot: u32) -> Result<(), PickleError> {
        match self.memo.get(&slot) {
            Some(value) => {
                self.stack.push(value.clone());
                Ok(())
            }
            None => self.malformed("a value remembered before"),
        }
    }

    fn tuple(&mut self, length: usize) -> Result<(), PickleError> {
        let mut values = Vec::with_capacity(length);
        for _ in 0..length {
            values.push(self.pop()?);
        }
        values.reverse();
        self.stack.push(Value::Tuple(values.into()));
        Ok(())
    }

    fn step(&mut self) -> Result<Option<Value>, PickleError> {
        let at = self.at;
        let [code] = self.number()?;
        let value = match code {
            b'.' => return self.pop().map(Some), // STOP
            0x80 => {
                self.take(1)?; // PROTO
                return Ok(None);
            }
            b'(' => Value::Mark,
            b'N' => Value::None,
            0x88 => Value::Bool(true),
            0x89 => Value::Bool(false),
            b'K' => Value::Int(self.number::<1>()?[0].into()),
            b'M' => Value::Int(u16::from_le_bytes(self.number()?).into()),
            b'J' => Value::Int(i32::from_le_bytes(self.number()?).into()),
            0x8a => {
                let length = usize::from(self.number::<1>()?[0]); // LONG1
                if length > 16 {
                    return self.malformed("an integer of at most 16 bytes");
                }
                let digits = self.take(length)?;
                let negative = digits.last().is_some_and(|byte| byte & 0x80 != 0);
                let mut number = [if negative { 0xff } else { 0 }; 16];
                number[..length].copy_from_slice(digits);
                // PyTorch's magic number has ten bytes; its low eight tell it apart well enough.
                Value::Int(i128::from_le_bytes(number) as i64)
            }
            b'X' => {
                let length = u32::from_le_bytes(self.number()?) as usize; // BINUNICODE
                self.text(length)?
            }
            0x8c => {
                let length = usize::from(self.number::<1>()?[0]); // SHORT_BINUNICODE
                self.text(length)?
            }
            b'U' => {
                let length = usize::from(self.number::<1>()?[0]); // SHORT_BINSTRING
                self.text(length)?
            }
            b')' => Value::Tuple(Rc::new([])),
            b']' => Value::List(Vec::new()),
            b'}' => Value::Dict(Vec::new()),
            b'c' => {
                let (module, name) = (self.line()?, self.line()?); // GLOBAL
                Value::Global(format!("{module}.{name}").into())
            }
            b't' => Value::Tuple(self.pop_to_mark()?.into()),
            0x85..=0x87 => {
                self.tuple(usize::from(code - 0x84))?;
                return Ok(None);
            }
            b'Q' => Value::Persistent(Rc::new(self.pop()?)),
            b'R' => {
                self.call()?;
                return Ok(None);
            }
            b'q' => {
                let slot = self.number::<1>()?[0].into();
                self.remember(slot)?;
                return Ok(None);
            }
            b'r' => {
                let slot = u32::from_le_bytes(self.number()?);
                self.remember(slot)?;
                return Ok(None);
            }
            b'h' => {
                let slot = self.number::<1>()?[0].into();
                self.recall(slot)?;
                return Ok(None);
            }
            b'j' => {
                let slot = u32::from_le_bytes(self.number()?);
                self.recall(slot)?;
                return Ok(None);
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.insert(vec![key, value])?;
                return Ok(None);
            }
            b'u' => {
                let pairs = self.pop_to_mark()?;
                self.insert(pairs)?;
                return Ok(None);
            }
            b'a' => {
                let value = self.pop()?;
                match self.stack.last_mut() {
                    Some(Value::List(list)) => list.push(value),
                    _ => return self.malformed("a list to fill"),
                }
                return Ok(None);
            }
            b'e' => {
                let mut values = self.pop_to_mark()?;
                match self.stack.last_mut() {
                    Some(Value::List(list)) => list.append(&mut values),
                    _ => return self.malformed("a list to fill"),
                }
                return Ok(None);
            }
            b'b' => {
                // BUILD: a state dict carries `_metadata` this way; it is of no use here.
                self.pop()?;
                match self.stack.last() {
                    Some(Value::Dict(_)) => return Ok(None),
                    _ => return self.malformed("a dict to build"),
                }
            }
            _ => return Err(PickleError::Opcode { code, at }),
        };
        self.stack.push(value);
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn code_is_refused_by_name() {
        let error = read(b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85R.").unwrap_err();
        assert_eq!(error, PickleError::Refused("os.system".into()));
        let error = read(b"\x80\x02cbuiltins\neval\n)R.").unwrap_err();
        assert!(error.to_string().contains("builtins.eval"));
    }

    #[test]
    fn lengths_beyond_the_end_are_no_allocation() {
        assert!(matches!(
            read(b"X\xff\xff\xff\xffabc"),
            Err(PickleError::CutOff(8))
        ));
        assert!(matches!(read(b"\x80"), Err(PickleError::CutOff(1))));
        assert!(matches!(
            read(b"\x96"),
            Err(PickleError::Opcode { code: 0x96, at: 0 })
        ));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = read(&bytes);
        }
    }
}
