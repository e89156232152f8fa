//! The tables, as a config wants them. They are made by an operator: who inserts needs no right to make any.

use crate::config::Clickhouse;

const SCHEMA: &str = include_str!("../../../deploy/clickhouse/schema.sql");

/// The statements that make the tables. One machine has those of the cluster without what makes them a cluster's.
#[must_use]
pub fn statements(config: &Clickhouse) -> Vec<String> {
    let text: String = SCHEMA
        .lines()
        .filter(|line| !line.trim_start().starts_with("--"))
        .map(|line| format!("{line}\n"))
        .collect();
    let text = text.replace("weir.", &format!("{}.", config.database));
    let text = text.replace(", weir,", &format!(", {},", config.database));
    let text = text.replace("EXISTS weir ", &format!("EXISTS {} ", config.database));
    let is_cluster = !config.cluster.is_empty();
    let text = if is_cluster {
        text.replace("'CLUSTER'", &format!("'{}'", config.cluster))
    } else {
        text.replace(" ON CLUSTER 'CLUSTER'", "").replace("Replicated", "").replace("_local", "")
    };
    let statements = text.split(';').map(str::trim).filter(|statement| !statement.is_empty());
    let belongs = |statement: &&str| is_cluster || !statement.contains("Distributed(");
    statements.filter(belongs).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use weir_common::record::BUCKET_RECORD_LEN;

    use super::*;
    use crate::clickhouse::windows::{DIMENSIONS, TOTALS};

    fn config(more: &str) -> Clickhouse {
        toml::from_str(&format!("url = \"http://a:1\"\n{more}")).unwrap()
    }

    /// Names and types of a table's stored columns.
    fn columns<'a>(text: &'a str, table: &str) -> Vec<(&'a str, &'a str)> {
        let (_, table) = text.split_once(&format!("{table}\n(\n")).expect("the table");
        let (columns, _) = table.split_once("\n)").expect("its end");
        let lines = columns.lines().map(|line| line.trim().trim_end_matches(','));
        lines.filter_map(|line| line.split_once(' ')).filter(|(_, kind)| is_stored(kind)).collect()
    }

    fn is_stored(kind: &str) -> bool {
        width(kind).is_some() || kind.starts_with("Enum8") || kind == "DateTime('UTC')"
    }

    fn width(kind: &str) -> Option<usize> {
        match kind {
            "UInt8" => Some(1),
            "FixedString(2)" => Some(2),
            "UInt32" => Some(4),
            "UInt64" => Some(8),
            _ => None,
        }
    }

    #[test]
    fn a_records_value_is_row_binary_of_the_base_table() {
        let one = statements(&config("")).join(";\n");
        let buckets = columns(&one, "weir.buckets");
        let octets: usize = buckets.iter().filter_map(|(_, kind)| width(kind)).sum();
        assert_eq!((buckets.len(), octets), (28, BUCKET_RECORD_LEN));
        // As the tables of the topics have them, and as the Kafka engine reads them.
        let topics = include_str!("../../../deploy/kafka/tables.sql");
        assert_eq!(columns(topics, "CREATE TABLE weir_buckets"), buckets);
        let engine = include_str!("../../../deploy/clickhouse/kafka.sql");
        assert_eq!(columns(engine, "weir.buckets_queue ON CLUSTER 'CLUSTER'"), buckets);
    }

    #[test]
    fn a_bucket_is_told_from_another_by_all_that_its_key_has_and_by_its_incarnation() {
        let one = statements(&config(""));
        let buckets = one.iter().find(|statement| statement.contains("weir.buckets\n")).unwrap();
        let order = format!("ORDER BY (minute, ad, {}, incarnation)", DIMENSIONS.join(", "));
        assert!(buckets.contains(&order), "{buckets}");
        assert!(buckets.contains("ENGINE = ReplacingMergeTree(revision)"), "{buckets}");
        let windows = one.iter().find(|statement| statement.contains("weir.windows\n")).unwrap();
        assert!(windows.contains(&format!("ORDER BY (span, ad, start, {})", DIMENSIONS.join(", "))));
        let names: Vec<_> = columns(windows, "weir.windows").into_iter().map(|(name, _)| name).collect();
        let expected: Vec<_> =
            ["span", "start", "ad"].into_iter().chain(DIMENSIONS).chain(TOTALS).chain(["built"]).collect();
        assert_eq!(names, expected);
    }

    #[test]
    fn one_machine_has_the_tables_of_a_cluster_under_the_names_that_are_asked_for() {
        let one = statements(&config("database = \"clicks\""));
        let many = statements(&config("database = \"clicks\"\ncluster = \"eu-1\""));
        assert_eq!((one.len(), many.len()), (6, 11));
        assert!(one.iter().all(|statement| !statement.contains("CLUSTER") && !statement.contains("weir")));
        assert!(many.iter().all(|statement| statement.contains("ON CLUSTER 'eu-1'")), "{many:?}");
        assert!(many.iter().all(|statement| !statement.contains("'CLUSTER'") && !statement.contains("weir")));
        for name in ["buckets", "windows", "closed", "nodes", "positions"] {
            let made = |all: &[String], name: &str| {
                let start = format!("CREATE TABLE IF NOT EXISTS clicks.{name}");
                all.iter().filter(|statement| statement.starts_with(&start)).count()
            };
            assert_eq!((made(&one, name), made(&many, &format!("{name}_local"))), (1, 1), "{name}");
            let sharded = format!("Distributed('eu-1', clicks, {name}_local,");
            assert!(many.iter().any(|statement| statement.contains(&sharded)), "{name}");
        }
        let replicated =
            many.iter().filter(|statement| statement.contains("= ReplicatedReplacingMergeTree("));
        assert_eq!(replicated.count(), 5);
    }
}
