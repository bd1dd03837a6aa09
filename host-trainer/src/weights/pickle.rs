//! Reads pickles of PyTorch's state dicts without executing code. In: bytes. Out: a [`Value`].
//!
//! A pickle is a program for a stack machine. This one knows the opcodes that a state dict needs,
//! and calls nothing: of the functions that a pickle may name, three are understood as data
//! (`OrderedDict`, `_rebuild_tensor_v2`, `_rebuild_parameter`), and any other is refused by name.
//! Every length is checked against the bytes that there are.

use std::collections::HashMap;
use std::rc::Rc;

/// Most opcodes, and therefore values: far more than any state dict has, and few enough for memory.
const MAX_OPCODES: usize = 1_000_000;
/// Deepest nesting of values; a state dict has about five levels. Dropping a value recurses, so
/// that depth takes stack.
const MAX_DEPTH: u8 = 32;

/// Why a pickle is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PickleError {
    /// It ends too early.
    #[error("the pickle is cut off at byte {0}")]
    CutOff(usize),
    /// An opcode that no state dict needs.
    #[error("pickle opcode 0x{code:02x} at byte {at} is not one that a state dict needs")]
    Opcode {
        /// The opcode.
        code: u8,
        /// Its position.
        at: usize,
    },
    /// It names a function that is not understood as data.
    #[error("refused to execute {0}: a file of weights has no use for it")]
    Refused(String),
    /// An opcode has unsuitable operands.
    #[error("the pickle is malformed at byte {at}: expected {expected}")]
    Malformed {
        /// Its position.
        at: usize,
        /// What was expected there.
        expected: &'static str,
    },
    /// It is longer than any state dict.
    #[error("the pickle has more than {MAX_OPCODES} opcodes")]
    TooMany,
    /// It nests values deeper than any state dict.
    #[error("the pickle nests values more than {MAX_DEPTH} deep")]
    TooDeep,
}

/// A value. Compound values are shared, so that memoising them is cheap.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    None,
    Bool(bool),
    Int(i64),
    Text(Rc<str>),
    Tuple(Rc<[Value]>),
    /// A list; not shared, because it is filled after it is created and a state dict refers to no
    /// list twice.
    List(Vec<Value>),
    /// A dict; not shared, for the same reason.
    Dict(Vec<(Value, Value)>),
    /// The name of a function, `module.name`.
    Global(Rc<str>),
    /// The content of a persistent id, by which PyTorch refers to a storage.
    Persistent(Rc<Value>),
    /// The arguments of `_rebuild_tensor_v2`: the storage, and the tensor's layout in it.
    Tensor(Rc<[Value]>),
    /// The mark from which an opcode takes values.
    Mark,
}

/// Reads one pickle. Returns its value and the number of bytes that it took.
pub(super) fn read(bytes: &[u8]) -> Result<(Value, usize), PickleError> {
    let mut machine = Machine {
        bytes,
        at: 0,
        stack: Vec::new(),
        memo: HashMap::new(),
    };
    for _ in 0..MAX_OPCODES {
        if let Some(value) = machine.step()? {
            return Ok((value, machine.at));
        }
    }
    Err(PickleError::TooMany)
}

/// A value with the depth of its nesting.
#[derive(Clone)]
struct Nested {
    value: Value,
    depth: u8,
}

impl Nested {
    fn flat(value: Value) -> Self {
        Self { value, depth: 0 }
    }
}

/// The depth of a value that contains these.
fn depth_around(contents: &[Nested]) -> Result<u8, PickleError> {
    match contents.iter().map(|nested| nested.depth).max() {
        None => Ok(0),
        Some(depth) if depth < MAX_DEPTH => Ok(depth + 1),
        Some(_) => Err(PickleError::TooDeep),
    }
}

/// The values without their depths.
fn values(contents: Vec<Nested>) -> impl Iterator<Item = Value> {
    contents.into_iter().map(|nested| nested.value)
}

/// The stack machine.
struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    stack: Vec<Nested>,
    memo: HashMap<u32, Nested>,
}

impl Machine<'_> {
    /// Takes the next `count` bytes.
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

    /// Takes the bytes of a number.
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

    /// Pops one value.
    fn pop(&mut self) -> Result<Nested, PickleError> {
        match self.stack.pop() {
            Some(nested) if nested.value != Value::Mark => Ok(nested),
            _ => self.malformed("a value on the stack"),
        }
    }

    /// Pops the values above the last mark, and the mark.
    fn pop_to_mark(&mut self) -> Result<Vec<Nested>, PickleError> {
        let mark = self
            .stack
            .iter()
            .rposition(|nested| nested.value == Value::Mark);
        match mark {
            Some(mark) => {
                let contents = self.stack.split_off(mark + 1);
                self.stack.pop();
                Ok(contents)
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

    /// Takes the bytes up to the next newline.
    fn line(&mut self) -> Result<String, PickleError> {
        let rest = &self.bytes[self.at..];
        let Some(length) = rest.iter().position(|&byte| byte == b'\n') else {
            return Err(PickleError::CutOff(self.bytes.len()));
        };
        let line = String::from_utf8_lossy(&rest[..length]).into_owned();
        self.at += length + 1;
        Ok(line)
    }

    /// Adds keys and values to the dict on top of the stack.
    fn insert(&mut self, pairs: Vec<Nested>) -> Result<(), PickleError> {
        if !pairs.len().is_multiple_of(2) {
            return self.malformed("keys with values");
        }
        let around = depth_around(&pairs)?;
        let mut pairs = values(pairs);
        match self.stack.last_mut() {
            Some(Nested {
                value: Value::Dict(dict),
                depth,
            }) => {
                *depth = around.max(*depth);
                while let (Some(key), Some(value)) = (pairs.next(), pairs.next()) {
                    dict.push((key, value));
                }
                Ok(())
            }
            _ => self.malformed("a dict to fill"),
        }
    }

    /// Adds values to the list on top of the stack.
    fn append(&mut self, contents: Vec<Nested>) -> Result<(), PickleError> {
        let around = depth_around(&contents)?;
        match self.stack.last_mut() {
            Some(Nested {
                value: Value::List(list),
                depth,
            }) => {
                *depth = around.max(*depth);
                list.extend(values(contents));
                Ok(())
            }
            _ => self.malformed("a list to fill"),
        }
    }

    /// Interprets a call of one of the three known functions; each only arranges its arguments.
    fn call(&mut self) -> Result<(), PickleError> {
        let Nested {
            value: arguments,
            depth,
        } = self.pop()?;
        let function = self.pop()?.value;
        let (Value::Global(name), Value::Tuple(arguments)) = (function, arguments) else {
            return self.malformed("a function and its arguments");
        };
        let value = match (&*name, &*arguments) {
            ("collections.OrderedDict", []) => Value::Dict(Vec::new()),
            ("torch._utils._rebuild_tensor_v2", [_, _, _, _, ..]) => Value::Tensor(arguments),
            ("torch._utils._rebuild_parameter", [tensor @ Value::Tensor(_), ..]) => tensor.clone(),
            _ => return Err(PickleError::Refused(name.to_string())),
        };
        self.stack.push(Nested { value, depth });
        Ok(())
    }

    /// Memoises the value on top of the stack.
    fn memoise(&mut self, slot: u32) -> Result<(), PickleError> {
        match self.stack.last() {
            // Containers are filled after they are memoised, and a state dict does not refer to
            // them again.
            Some(nested)
                if matches!(nested.value, Value::Dict(_) | Value::List(_) | Value::Mark) =>
            {
                Ok(())
            }
            Some(nested) => {
                self.memo.insert(slot, nested.clone());
                Ok(())
            }
            None => self.malformed("a value to memoise"),
        }
    }

    /// Pushes a memoised value.
    fn recall(&mut self, slot: u32) -> Result<(), PickleError> {
        match self.memo.get(&slot) {
            Some(nested) => {
                self.stack.push(nested.clone());
                Ok(())
            }
            None => self.malformed("a memoised value"),
        }
    }

    /// Pops `count` values, in the order in which they were pushed.
    fn pop_count(&mut self, count: usize) -> Result<Vec<Nested>, PickleError> {
        let mut contents = Vec::with_capacity(count);
        for _ in 0..count {
            contents.push(self.pop()?);
        }
        contents.reverse();
        Ok(contents)
    }

    /// Pushes a tuple of these values.
    fn tuple(&mut self, contents: Vec<Nested>) -> Result<(), PickleError> {
        let depth = depth_around(&contents)?;
        let value = Value::Tuple(values(contents).collect());
        self.stack.push(Nested { value, depth });
        Ok(())
    }

    /// Executes one opcode. Returns the pickle's value if it was the last one.
    fn step(&mut self) -> Result<Option<Value>, PickleError> {
        let at = self.at;
        let [code] = self.number()?;
        let value = match code {
            b'.' => return self.pop().map(|nested| Some(nested.value)), // STOP
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
                // PyTorch's magic number has ten bytes; the low eight suffice to recognise it.
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
            b't' => {
                let contents = self.pop_to_mark()?;
                self.tuple(contents)?;
                return Ok(None);
            }
            0x85..=0x87 => {
                let contents = self.pop_count(usize::from(code - 0x84))?;
                self.tuple(contents)?;
                return Ok(None);
            }
            b'Q' => {
                let id = self.pop()?; // BINPERSID
                let depth = depth_around(std::slice::from_ref(&id))?;
                let value = Value::Persistent(Rc::new(id.value));
                self.stack.push(Nested { value, depth });
                return Ok(None);
            }
            b'R' => {
                self.call()?;
                return Ok(None);
            }
            b'q' => {
                let slot = self.number::<1>()?[0].into();
                self.memoise(slot)?;
                return Ok(None);
            }
            b'r' => {
                let slot = u32::from_le_bytes(self.number()?);
                self.memoise(slot)?;
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
                let pair = self.pop_count(2)?;
                self.insert(pair)?;
                return Ok(None);
            }
            b'u' => {
                let pairs = self.pop_to_mark()?;
                self.insert(pairs)?;
                return Ok(None);
            }
            b'a' => {
                let value = self.pop()?;
                self.append(vec![value])?;
                return Ok(None);
            }
            b'e' => {
                let contents = self.pop_to_mark()?;
                self.append(contents)?;
                return Ok(None);
            }
            b'b' => {
                // BUILD: sets a state dict's `_metadata`, which is not needed here.
                self.pop()?;
                match self.stack.last().map(|nested| &nested.value) {
                    Some(Value::Dict(_)) => return Ok(None),
                    _ => return self.malformed("a dict to build"),
                }
            }
            _ => return Err(PickleError::Opcode { code, at }),
        };
        self.stack.push(Nested::flat(value));
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
    fn lengths_beyond_the_end_are_refused() {
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

    /// Dropping a value recurses, so that unlimited nesting would overflow the stack, which aborts
    /// the program.
    #[test]
    fn deep_nesting_is_an_error() {
        let count = 400_000;
        let nested = |head: &[u8], body: &[u8], tail: &[u8]| {
            let mut bytes = head.to_vec();
            bytes.extend(body.repeat(count));
            bytes.extend(tail.repeat(count));
            bytes.push(b'.');
            read(&bytes).unwrap_err()
        };
        assert_eq!(nested(b")", b"\x85", b""), PickleError::TooDeep);
        assert_eq!(nested(b"N", b"Q", b""), PickleError::TooDeep);
        assert_eq!(nested(b"", b"]", b"a"), PickleError::TooDeep);
        assert_eq!(nested(b"N", b"q\x01(h\x01t", b""), PickleError::TooDeep);
    }

    #[test]
    fn a_long_pickle_cannot_fill_memory() {
        let mut bytes = b"]".to_vec();
        bytes.extend(b"Na".repeat(MAX_OPCODES));
        assert_eq!(read(&bytes), Err(PickleError::TooMany));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = read(&bytes);
        }
    }
}
