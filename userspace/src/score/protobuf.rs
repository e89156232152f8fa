//! The protobuf wire format, as far as reading a model needs it: fields in the order they stand,
//! without copies.
//!
//! <https://protobuf.dev/programming-guides/encoding/>. Its own code and not a library's, because a
//! library builds the whole message first: two octets of the file then become a structure of two
//! hundred, before anything could say that there are too many. Here nothing is allocated but the
//! numbers that were asked for, at most eight octets for each octet of the file.

use displaydoc::Display;
use thiserror::Error;

/// The file is not what its writer wrote, or not protobuf.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Display, Error)]
pub enum Damage {
    /// the file ends in the middle of a field; copy it again
    Cut,
    /// a number has more than 64 bits; the file is damaged or no ONNX model
    LongNumber,
    /// a field has the number 0 or more than 29 bits; the file is damaged or no ONNX model
    FieldNumber,
    /// a field has a wire type that ONNX does not use; the file is damaged or no ONNX model
    WireType,
    /// field {0} has another type than in ONNX; the file is damaged or no ONNX model
    FieldType(u32),
    /// field {0} is not UTF-8; the file is damaged or no ONNX model
    NotText(u32),
    /// a list has more than {0} entries; train a smaller model
    TooMany(usize),
}

/// The value of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Varint(u64),
    Fixed64,
    Fixed32(u32),
    Bytes(&'a [u8]),
}

/// A field: its number and its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Field<'a> {
    pub(super) number: u32,
    pub(super) value: Value<'a>,
}

impl<'a> Field<'a> {
    /// The octets of a string, a message or packed numbers.
    pub(super) fn bytes(&self) -> Result<&'a [u8], Damage> {
        match self.value {
            Value::Bytes(bytes) => Ok(bytes),
            _ => Err(Damage::FieldType(self.number)),
        }
    }

    pub(super) fn text(&self) -> Result<&'a str, Damage> {
        str::from_utf8(self.bytes()?).map_err(|_| Damage::NotText(self.number))
    }

    pub(super) fn int(&self) -> Result<i64, Damage> {
        match self.value {
            Value::Varint(number) => Ok(number.cast_signed()),
            _ => Err(Damage::FieldType(self.number)),
        }
    }
}

/// The fields of a message, in order. Ends after the first damage.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields<'a> {
    rest: &'a [u8],
}

/// Octets of the longest varint: 64 bits in groups of 7.
const VARINT_LEN_MAX: usize = 10;

impl<'a> Fields<'a> {
    pub(super) const fn of(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    fn varint(&mut self) -> Result<u64, Damage> {
        let mut number = 0;
        for (at, &octet) in self.rest.iter().take(VARINT_LEN_MAX).enumerate() {
            // Of the last group only one bit is left.
            if at == VARINT_LEN_MAX - 1 && octet > 1 {
                return Err(Damage::LongNumber);
            }
            number |= u64::from(octet & 0x7f) << (7 * at);
            if octet & 0x80 == 0 {
                self.rest = &self.rest[at + 1..];
                return Ok(number);
            }
        }
        Err(Damage::Cut)
    }

    fn take(&mut self, count: u64) -> Result<&'a [u8], Damage> {
        let count = usize::try_from(count).map_err(|_| Damage::Cut)?;
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(Damage::Cut)?;
        self.rest = rest;
        Ok(taken)
    }

    fn field(&mut self) -> Result<Field<'a>, Damage> {
        let key = self.varint()?;
        let number = u32::try_from(key >> 3).map_err(|_| Damage::FieldNumber)?;
        if number == 0 || number >= 1 << 29 {
            return Err(Damage::FieldNumber);
        }
        let value = match key & 7 {
            0 => Value::Varint(self.varint()?),
            1 => self.take(8).map(|_| Value::Fixed64)?,
            2 => {
                let count = self.varint()?;
                Value::Bytes(self.take(count)?)
            }
            5 => {
                let bytes = self.take(4)?.first_chunk().ok_or(Damage::Cut)?;
                Value::Fixed32(u32::from_le_bytes(*bytes))
            }
            _ => return Err(Damage::WireType),
        };
        Ok(Field { number, value })
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, Damage>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

/// The numbers of a repeated field of integers, packed or not: writers do both.
pub(super) fn ints(message: &[u8], number: u32, count_max: usize) -> Result<Vec<i64>, Damage> {
    let mut ints = Vec::new();
    for field in Fields::of(message) {
        let field = field?;
        if field.number != number {
            continue;
        }
        if let Value::Bytes(packed) = field.value {
            let mut packed = Fields::of(packed);
            while !packed.rest.is_empty() {
                push(&mut ints, packed.varint()?.cast_signed(), count_max)?;
            }
        } else {
            push(&mut ints, field.int()?, count_max)?;
        }
    }
    Ok(ints)
}

/// The numbers of a repeated field of 32-bit floats, packed or not.
pub(super) fn floats(message: &[u8], number: u32, count_max: usize) -> Result<Vec<f32>, Damage> {
    let mut floats = Vec::new();
    for field in Fields::of(message) {
        let field = field?;
        if field.number != number {
            continue;
        }
        match field.value {
            Value::Fixed32(bits) => push(&mut floats, f32::from_bits(bits), count_max)?,
            Value::Bytes(packed) => {
                let (whole, rest) = packed.as_chunks();
                if !rest.is_empty() {
                    return Err(Damage::FieldType(number));
                }
                for bytes in whole {
                    push(&mut floats, f32::from_le_bytes(*bytes), count_max)?;
                }
            }
            _ => return Err(Damage::FieldType(number)),
        }
    }
    Ok(floats)
}

/// The strings of a repeated field.
pub(super) fn strings(message: &[u8], number: u32, count_max: usize) -> Result<Vec<&[u8]>, Damage> {
    let mut strings = Vec::new();
    for field in Fields::of(message) {
        let field = field?;
        if field.number == number {
            push(&mut strings, field.bytes()?, count_max)?;
        }
    }
    Ok(strings)
}

fn push<T>(list: &mut Vec<T>, entry: T, count_max: usize) -> Result<(), Damage> {
    if list.len() == count_max {
        return Err(Damage::TooMany(count_max));
    }
    list.push(entry);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(message: &[u8]) -> Vec<Result<Field<'_>, Damage>> {
        Fields::of(message).collect()
    }

    #[test]
    fn every_wire_type_of_onnx_is_read() {
        let message =
            [0x08, 0x96, 0x01, 0x15, 0, 0, 0x80, 0x3f, 0x1a, 2, b'h', b'i', 0x21, 1, 2, 3, 4, 5, 6, 7, 8];
        let expected = [
            Ok(Field { number: 1, value: Value::Varint(150) }),
            Ok(Field { number: 2, value: Value::Fixed32(0x3f80_0000) }),
            Ok(Field { number: 3, value: Value::Bytes(b"hi") }),
            Ok(Field { number: 4, value: Value::Fixed64 }),
        ];
        assert_eq!(fields(&message), expected);
    }

    #[test]
    fn what_is_cut_ends_with_one_damage() {
        let message = [0x08, 0x96, 0x01, 0x1a, 2, b'h', b'i'];
        for cut in [1, 2, 4, 5, 6] {
            assert_eq!(fields(&message[..cut]).last(), Some(&Err(Damage::Cut)), "{cut}");
        }
        // A length that no memory could hold.
        let mut huge = vec![0x1a];
        huge.extend([0xff; 9]);
        huge.push(1);
        assert_eq!(fields(&huge), [Err(Damage::Cut)]);
    }

    #[test]
    fn what_is_no_protobuf_is_named() {
        let mut long = vec![0x08];
        long.extend([0xff; 9]);
        assert_eq!(fields(&[&long[..], &[2]].concat()), [Err(Damage::LongNumber)]);
        let number = Field { number: 1, value: Value::Varint(u64::MAX) };
        assert_eq!(fields(&[&long[..], &[1]].concat()), [Ok(number)]);
        assert_eq!(fields(&[0x00, 1]), [Err(Damage::FieldNumber)]);
        assert_eq!(fields(&[0x80, 0x80, 0x80, 0x80, 0x10, 1]), [Err(Damage::FieldNumber)]);
        assert_eq!(fields(&[0x0b, 1]), [Err(Damage::WireType)]);
    }

    #[test]
    fn numbers_are_read_packed_and_one_by_one() {
        let negative_one = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
        let mut message = vec![0x40, 7, 0x42, 3, 5, 0x96, 1, 0x40];
        message.extend(negative_one);
        assert_eq!(ints(&message, 8, 4), Ok(vec![7, 5, 150, -1]));
        assert_eq!(ints(&message, 8, 3), Err(Damage::TooMany(3)));
        let halves = [0x3d, 0, 0, 0, 0x3f, 0x3a, 4, 0, 0, 0, 0xbf];
        assert_eq!(floats(&halves, 7, 9), Ok(vec![0.5, -0.5]));
        assert_eq!(floats(&[0x3a, 3, 0, 0, 0], 7, 9), Err(Damage::FieldType(7)));
        assert_eq!(strings(&[0x4a, 1, b'a', 0x4a, 0], 9, 9), Ok(vec![&b"a"[..], &b""[..]]));
        assert_eq!(strings(&[0x48, 1], 9, 9), Err(Damage::FieldType(9)));
    }
}
