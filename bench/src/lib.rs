//! The generator and its measurements: loads an edge node over UDP, over HTTP, as raw frames, or compares ways
//! to receive, and says exactly what the node must have counted.
//!
//! Open loop: sends follow a plan made before the run and never wait for answers; a run that could
//! not keep its plan is marked invalid instead of reporting a slower one. It sends only to the
//! addresses it is given.
//!
//! Start reading at [`kind`]: the table of everything that can be sent and what must become of it;
//! then [`udp`] and [`http`], the engines, and [`report`], the JSON that other programs parse. [`attack`] is apart:
//! few clicks from many addresses, whose verdict is the node's.

pub mod acked_log;
pub mod attack;
pub mod books;
pub mod clicks;
pub mod duration;
pub mod http;
pub mod key_file;
pub mod kind;
pub mod lane;
pub mod live_frames;
pub mod live_program;
pub mod malformed;
pub mod mock_edge;
pub mod packet_socket;
pub mod plan;
pub mod policy;
pub mod rank_test;
pub mod raw_frames;
pub mod recvmmsg;
pub mod reply_times;
pub mod report;
pub mod sink;
pub mod thread_time;
pub mod udp;
pub mod verdict;
pub mod zipf;
