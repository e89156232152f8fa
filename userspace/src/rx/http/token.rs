//! A signed impression as text, as links and JSON have it: the codec that ad servers use too, and what is told of
//! a text that is no token.

use weir_common::reason::{Outcome, Reason};
pub use weir_common::token::{Token, TokenError, TokenText};

use super::clicks::Fault;

impl From<TokenError> for Fault {
    /// `bad_token`.
    fn from(error: TokenError) -> Self {
        Self { outcome: Outcome::Malformed, reason: Reason::BadToken, field: "", why: error.to_string() }
    }
}
