//! What an expression asks of a node. No parser: a real Prometheus reads every expression in a lab.

use super::exported::Series;

/// A metric that an expression names, with what it wants of its labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Selector<'a> {
    pub(crate) metric: &'a str,
    /// Label, and the values of which each has to be there; none says that any is right.
    pub(crate) labels: Vec<(&'a str, Vec<&'a str>)>,
    /// Whether a rate or an increase is made of it, at once.
    pub(crate) is_rated: bool,
}

/// All selectors of metrics of a node.
pub(crate) fn selectors(expression: &str) -> Vec<Selector<'_>> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(begin) = expression[at..].find("weir_").map(|offset| at + offset) {
        let rest = &expression[begin..];
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let (metric, rest) = rest.split_at(rest.find(|c| !is_name(c)).unwrap_or(rest.len()));
        let matchers =
            rest.strip_prefix('{').and_then(|rest| rest.split_once('}')).map_or("", |(inside, _)| inside);
        let is_rated = ["rate(", "increase("].iter().any(|call| expression[..begin].ends_with(call));
        found.push(Selector { metric, labels: matchers.split(',').filter_map(matcher).collect(), is_rated });
        at = begin + metric.len();
    }
    found
}

/// What Prometheus adds to each series is not a node's to have.
fn matcher(text: &str) -> Option<(&str, Vec<&str>)> {
    let (label, value) = text.split_once('=')?;
    let (label, is_negated) =
        label.trim().strip_suffix('!').map_or((label.trim(), false), |label| (label, true));
    let value = value.trim_start_matches('~').trim_matches('"');
    let values = if is_negated { Vec::new() } else { value.split('|').collect() };
    Some((label, values)).filter(|(label, _)| !["job", "instance"].contains(label))
}

impl Selector<'_> {
    /// What of it no series has.
    pub(crate) fn missing(&self, series: &[Series]) -> Option<String> {
        let of_name: Vec<_> = series.iter().filter(|series| series.name == self.metric).collect();
        if of_name.is_empty() {
            return Some(format!("{} is no metric", self.metric));
        }
        self.labels.iter().find_map(|(label, values)| {
            let there = |value: &str| {
                of_name.iter().any(|series| series.labels.get(*label).is_some_and(|it| it == value))
            };
            if values.is_empty() && of_name.iter().all(|series| !series.labels.contains_key(*label)) {
                return Some(format!("{} has no label {label}", self.metric));
            }
            let value = values.iter().find(|value| !there(value))?;
            Some(format!("{} has no {label}={value:?}", self.metric))
        })
    }

    /// A counter is only looked at for how it rises, and nothing else is.
    pub(crate) fn is_used_as_it_is(&self) -> bool {
        let is_counter = ["_total", "_bucket", "_sum", "_count"].iter().any(|end| self.metric.ends_with(end));
        is_counter == self.is_rated
    }
}

#[test]
fn selectors_are_found_with_what_they_want_of_labels() {
    let expression =
        "sum by (worker) (rate(weir_a_total{job=\"weir\", reason=~\"x|y\",b!=\"\"}[5m])) > weir_c";
    let [a, c] = &selectors(expression)[..] else { panic!("two selectors") };
    assert_eq!((a.metric, a.is_rated), ("weir_a_total", true));
    assert_eq!(a.labels, [("reason", vec!["x", "y"]), ("b", vec![])]);
    assert_eq!((c.metric, c.is_rated, c.labels.len()), ("weir_c", false, 0));
}
