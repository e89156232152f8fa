//! Decimal numbers by their digits: prices must not pass through a float.

/// A decimal number as it was written: `digits` times ten to `exponent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Decimal {
    pub(crate) negative: bool,
    digits: u64,
    exponent: i32,
    /// 64 bits hold no further digit.
    full: bool,
    /// Digits that did not fit are not all zero.
    more: bool,
}

/// A decimal number in fixed point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fixed {
    /// The magnitude, cut off at the last place.
    pub(crate) cut: u64,
    /// Nothing was cut off.
    pub(crate) exact: bool,
    /// At least half of the last place was cut off.
    pub(crate) half: bool,
}

impl Decimal {
    /// Reads a number as JSON writes it (RFC 8259, section 6); more zeros in front are allowed.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let (mantissa, exponent) = match text.find(['e', 'E']) {
            Some(at) => (&text[..at], parse_exponent(&text[at + 1..])?),
            None => (text, 0),
        };
        let (whole, fraction) = match mantissa.split_once('.') {
            Some((_, "")) => return None,
            Some(parts) => parts,
            None => (mantissa, ""),
        };
        if whole.is_empty() {
            return None;
        }
        let mut number = Self { negative, digits: 0, exponent, full: false, more: false };
        for byte in whole.bytes().chain(fraction.bytes()) {
            match byte.wrapping_sub(b'0') {
                digit @ 0..=9 => number.append(digit.into()),
                _ => return None,
            }
        }
        let places = i32::try_from(fraction.len()).unwrap_or(i32::MAX);
        number.exponent = number.exponent.saturating_sub(places);
        Some(number)
    }

    #[inline]
    fn append(&mut self, digit: u64) {
        match self.digits.checked_mul(10).and_then(|shifted| shifted.checked_add(digit)) {
            Some(digits) if !self.full => self.digits = digits,
            _ => {
                self.full = true;
                self.more |= digit != 0;
                self.exponent = self.exponent.saturating_add(1);
            }
        }
    }

    /// In fixed point with so many places behind the point; none when 64 bits do not hold it.
    pub(crate) fn fixed(self, places: i32) -> Option<Fixed> {
        let exponent = self.exponent.saturating_add(places);
        if self.digits == 0 {
            return Some(Fixed { cut: 0, exact: true, half: false });
        }
        if exponent >= 0 {
            // What did not fit stands before the last place: the whole does not fit either.
            if self.more {
                return None;
            }
            let cut = 10_u64.checked_pow(exponent.unsigned_abs())?.checked_mul(self.digits)?;
            return Some(Fixed { cut, exact: true, half: false });
        }
        let Some(ten) = 10_u64.checked_pow(exponent.unsigned_abs()) else {
            // Below a fifth of the last place: 64 bits against ten to the twentieth.
            return Some(Fixed { cut: 0, exact: false, half: false });
        };
        let (cut, rest) = (self.digits / ten, self.digits % ten);
        Some(Fixed { cut, exact: rest == 0 && !self.more, half: rest >= ten / 2 })
    }
}

fn parse_exponent(text: &str) -> Option<i32> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let magnitude = digits.parse().unwrap_or(i32::MAX);
    Some(if negative { -magnitude } else { magnitude })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fixed(text: &str) -> Option<(u64, bool, bool)> {
        Decimal::parse(text)?.fixed(6).map(|fixed| (fixed.cut, fixed.exact, fixed.half))
    }

    #[test]
    fn digits_behind_the_last_place_are_cut_off_and_told() {
        assert_eq!(fixed("0.25"), Some((250_000, true, false)));
        assert_eq!(fixed("0.2500000000000000000000000000000"), Some((250_000, true, false)));
        assert_eq!(fixed("0.2500000000000000000000000000001"), Some((250_000, false, false)));
        assert_eq!(fixed("0.0000005"), Some((0, false, true)));
        assert_eq!(fixed("0.00000049999999999999999999999999"), Some((0, false, false)));
        assert_eq!(fixed("0.123456500000000000000000001"), Some((123_456, false, true)));
        assert_eq!(fixed("12345.6789019"), Some((12_345_678_901, false, true)));
    }

    #[test]
    fn exponents_move_the_point() {
        assert_eq!(fixed("25e-2"), Some((250_000, true, false)));
        assert_eq!(fixed("0.00025E+3"), Some((250_000, true, false)));
        assert_eq!(fixed("1e6"), Some((1_000_000_000_000, true, false)));
        assert_eq!(fixed("1e14"), None);
        assert_eq!(fixed("0e99999999999999"), Some((0, true, false)));
        assert_eq!(fixed("7e-99999999999999"), Some((0, false, false)));
        assert_eq!(fixed("10000000000000000000000000e-25"), Some((1_000_000, true, false)));
        assert_eq!(fixed("18446744073709.551615"), Some((u64::MAX, true, false)));
        assert_eq!(fixed("18446744073709.551616"), None);
    }

    #[test]
    fn what_is_no_number_is_told_apart() {
        for text in
            ["", "-", ".", "1.", ".5", "+1", "1e", "1e+", "1e1.5", "0x1", "1,5", "1 ", "NaN", "--1", "1.2.3"]
        {
            assert_eq!(Decimal::parse(text), None, "{text:?}");
        }
        assert!(
            Decimal::parse("-0")
                .is_some_and(|zero| zero.negative && zero.fixed(6).is_some_and(|f| f.cut == 0))
        );
    }

    proptest! {
        #[test]
        fn fixed_point_comes_back_to_the_unit(units in any::<u64>(), zeros in "0{0,30}", front in "0{0,30}") {
            let text = format!("{front}{}.{:06}{zeros}", units / 1_000_000, units % 1_000_000);
            prop_assert_eq!(fixed(&text), Some((units, true, false)));
        }

        #[test]
        fn any_text_is_a_number_or_none(text in "[-+.eE0-9]{0,40}", places in -30..30) {
            if let Some(number) = Decimal::parse(&text) {
                let _ = number.fixed(places);
            }
        }
    }
}
