//! Why a request is refused as a whole: the table of statuses, titles and remedies.
