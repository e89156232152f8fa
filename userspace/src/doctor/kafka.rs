//! The brokers the config names: whether they take a connection, and one of them answers.

use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use super::Condition;
use super::finding::{Finding, Verdict};
use crate::config::{Cluster, Config, Sink};
use crate::forward::kafka::reader::Reader;

/// How long one broker may take to take a connection.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// Brokers that are connected to one after the other; a cluster is found by any of them.
const BROKERS_MAX: usize = 8;
/// The name the brokers are given.
const CLIENT_ID: &str = "weir-doctor";

/// What a cluster said.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Asked {
    /// Who answered, of how many; or why nobody did.
    answer: Result<(String, usize), String>,
    /// Brokers of the config that took no connection, and why.
    silent: Vec<(String, String)>,
}

/// Everything that there is to say of the clusters.
pub(super) fn examine(config: &Config) -> Vec<Finding> {
    if config.forward.sink != Sink::Kafka {
        return vec![Verdict::not_needed("forward.sink is \"embedded\"").of(Condition::Kafka, None)];
    }
    let raw = [("kafka", &config.kafka.cluster)];
    let buckets = config.kafka.buckets.as_ref().map(|cluster| ("kafka.buckets", cluster));
    let judged =
        |(key, cluster): (&str, &Cluster)| judge(&ask(cluster)).of(Condition::Kafka, Some(key.to_owned()));
    raw.into_iter().chain(buckets).map(judged).collect()
}

fn ask(cluster: &Cluster) -> Asked {
    let refused = |broker: &String| Some((broker.clone(), connect(broker).err()?));
    let silent = cluster.settings.brokers.iter().take(BROKERS_MAX).filter_map(refused).collect();
    let answer = Reader::new(&cluster.settings, CLIENT_ID).and_then(|reader| reader.brokers());
    Asked { answer: answer.map_err(|error| error.to_string()), silent }
}

fn connect(broker: &str) -> Result<(), String> {
    let mut addresses = broker.to_socket_addrs().map_err(|error| error.to_string())?;
    let address = addresses.next().ok_or("its name has no address")?;
    TcpStream::connect_timeout(&address, CONNECT_MAX).map(drop).map_err(|error| error.to_string())
}

fn judge(asked: &Asked) -> Verdict {
    let required = "every broker of the config takes a connection";
    let silent: Vec<_> = asked.silent.iter().map(|(broker, why)| format!("{broker}: {why}")).collect();
    let silent = silent.join("; ");
    match &asked.answer {
        Ok((broker, count)) if asked.silent.is_empty() => {
            Verdict::ok(required, format!("{broker} answers, one of {count}"))
        }
        Ok((broker, _)) => Verdict::warning(required, format!("{broker} answers, but {silent}")),
        Err(why) if asked.silent.is_empty() => Verdict::warning(required, why),
        Err(why) => Verdict::warning(required, format!("{silent}; {why}")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Severity::{Ok as Fine, Warning};
    use super::*;

    fn asked(answers: bool, silent: &[&str]) -> Asked {
        let answer = if answers { Ok(("b1:9092".to_owned(), 3)) } else { Err("timed out".to_owned()) };
        let silent = silent.iter().map(|&broker| (broker.to_owned(), "refused".to_owned())).collect();
        Asked { answer, silent }
    }

    #[test]
    fn a_broker_that_is_away_is_named_and_keeps_no_node_from_starting() {
        let sound = judge(&asked(true, &[]));
        assert_eq!((sound.severity, sound.current.as_str()), (Fine, "b1:9092 answers, one of 3"));
        let one = judge(&asked(true, &["b2:9092"]));
        assert_eq!((one.severity, one.current.as_str()), (Warning, "b1:9092 answers, but b2:9092: refused"));
        let all = judge(&asked(false, &["b1:9092", "b2:9092"]));
        assert_eq!(all.current, "b1:9092: refused; b2:9092: refused; timed out");
        assert_eq!(judge(&asked(false, &[])).severity, Warning);
    }

    #[test]
    fn a_port_that_nobody_listens_on_takes_no_connection() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a socket");
        let address = free.local_addr().expect("an address").to_string();
        assert_eq!(connect(&address), Ok(()));
        drop(free);
        assert!(connect(&address).is_err() && connect("no port").is_err());
    }
}
