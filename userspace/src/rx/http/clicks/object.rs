//! The fields of one JSON object: which are there, and the text of each, still as written.
//!
//! Splits and checks the syntax, in one pass; what a text means is `value`'s part. So the digits of a price
//! reach it untouched, and a field of a wrong type is no error of the syntax.

use serde::Deserialize;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

macro_rules! fields {
    ($( $field:ident $name:literal )*) => {
        /// A field that a click can have.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub(super) enum Field { $( $field, )* }

        impl Field {
            /// Number of fields.
            pub(super) const COUNT: usize = [$( $name, )*].len();

            /// The field of this name.
            fn of_name(name: &str) -> Option<Self> {
                match name { $( $name => Some(Self::$field), )* _ => None }
            }

            /// Its name.
            pub(super) const fn name(self) -> &'static str {
                match self { $( Self::$field => $name, )* }
            }
        }
    };
}

fields! {
    EventId "event_id"
    Impression "impression"
    Ordinal "ordinal"
    Timestamp "timestamp"
    Ad "ad_id"
    Campaign "campaign_id"
    Creative "creative_id"
    Placement "placement_id"
    Publisher "publisher_id"
    CostPerClick "cost_per_click"
    User "user_id"
    Session "session_id"
    Conversion "conversion_id"
    Device "device_type"
    Country "country"
    UserAgent "user_agent"
    Referrer "referrer"
    Latitude "lat"
    Longitude "lon"
    X "x"
    Y "y"
    Test "test"
}

// One bit of a set each.
const _: () = assert!(Field::COUNT <= u32::BITS as usize);

/// The fields of an object, each as written.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    /// The JSON text of each field, "" where it is left out.
    raw: [&'a str; Field::COUNT],
    /// The first field that was given twice.
    pub(super) twice: Option<Field>,
}

impl<'a> Fields<'a> {
    /// Reads an object to its end. Names that are no field's are passed over, so that a sender may be
    /// newer than this node.
    pub(super) fn read<A: MapAccess<'a>>(mut map: A) -> Result<Self, A::Error> {
        let mut fields = Self { raw: [""; Field::COUNT], twice: None };
        while let Some(Key(field)) = map.next_key()? {
            let Some(field) = field else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let raw = map.next_value::<&RawValue>()?.get();
            let place = &mut fields.raw[field as usize];
            if !place.is_empty() {
                fields.twice = fields.twice.or(Some(field));
            }
            *place = raw;
        }
        Ok(fields)
    }

    /// The JSON text of a field, "" where it is left out.
    #[inline]
    pub(super) const fn raw(&self, field: Field) -> &'a str {
        self.raw[field as usize]
    }
}

/// The name of a field.
struct Key(Option<Field>);

impl<'de> Deserialize<'de> for Key {
    #[inline]
    fn deserialize<D: serde::Deserializer<'de>>(name: D) -> Result<Self, D::Error> {
        struct Name;
        impl Visitor<'_> for Name {
            type Value = Key;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("the name of a field")
            }

            #[inline]
            fn visit_str<E>(self, name: &str) -> Result<Key, E> {
                Ok(Key(Field::of_name(name)))
            }
        }
        name.deserialize_str(Name)
    }
}
