//! Why the node's time cannot be relied on: the table of names, causes and remedies.

macro_rules! doubts {
    ($( $number:literal $variant:ident $name:literal { $cause:literal } { $remedy:literal } )*) => {
        /// Why the node's time is uncertain.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Doubt {
            $( #[doc = $cause] $variant = $number, )*
        }

        impl Doubt {
            /// Every doubt, in the order of their numbers.
            pub const ALL: &'static [Self] = &[ $( Self::$variant, )* ];

            /// The doubt with this number.
            #[inline]
            #[must_use]
            pub const fn from_number(number: u8) -> Option<Self> {
                match number { $( $number => Some(Self::$variant), )* _ => None }
            }

            /// The stable name, in status and metrics.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $( Self::$variant => $name, )* }
            }

            /// What happened, as one sentence for an operator.
            #[must_use]
            pub const fn cause(self) -> &'static str {
                match self { $( Self::$variant => $cause, )* }
            }

            /// What to do about it.
            #[must_use]
            pub const fn remedy(self) -> &'static str {
                match self { $( Self::$variant => $remedy, )* }
            }
        }
    };
}

doubts! {
    1 NoTime "no_time"
        { "The system clock shows a year that cannot be, and the journal is empty, so nothing tells the time." }
        { "Set the clock (see that NTP runs). Unsigned clicks are told to retry until then; signed ones tell the time by their issue." }
    2 Implausible "implausible"
        { "The system clock shows a year that cannot be." }
        { "Set the clock (see that NTP runs, and the battery of the clock); the node goes on by itself." }
    3 AheadOfJournal "ahead_of_journal"
        { "At the start the system clock was further ahead of the journal than a stop lasts." }
        { "If the node was stopped for that long, restart it with `weir run --clock-is-right`; signed clicks end it by themselves. If not, set the clock." }
    4 BehindJournal "behind_journal"
        { "At the start the system clock was behind what the journal has already." }
        { "Set the clock. If it is right now and was ahead before, wait: the node goes on when it has caught up. If that takes longer than half of `admission.lifetime`, restart it with `weir run --clock-is-right`." }
    5 SteppedAhead "stepped_ahead"
        { "The system clock was stepped ahead while the node ran." }
        { "If it is right now, restart the node with `weir run --clock-is-right`; signed clicks end it by themselves. If not, set it back; the node goes on." }
    6 SteppedBack "stepped_back"
        { "The system clock was stepped back while the node ran." }
        { "If it is right now, wait: the node goes on when it has caught up. If not, set it; the node goes on by itself." }
    7 SignedAhead "signed_ahead"
        { "Most signed clicks were issued in the future of this node's clock." }
        { "Compare the clocks of this node and of the ad servers, and set the one that is wrong; the node goes on by itself." }
}

impl Doubt {
    /// Its number.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_doubt_has_its_own_number_name_and_texts() {
        let names: BTreeSet<_> = Doubt::ALL.iter().map(|doubt| doubt.name()).collect();
        assert_eq!(names.len(), Doubt::ALL.len());
        for &doubt in Doubt::ALL {
            assert_eq!(Doubt::from_number(doubt.number()), Some(doubt));
            assert!(doubt.cause().ends_with('.') && doubt.remedy().ends_with('.'), "{doubt:?}");
        }
        assert_eq!(Doubt::from_number(0), None);
    }
}
