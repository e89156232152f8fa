//! Whether one sample tends to be larger than another: the rank test of Mann and Whitney (1947), which asks nothing
//! of how the samples are distributed.

/// What the ranks say.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct RankTest {
    /// How often one of the second sample is larger than one of the first, ties as half: 0.5 where neither tends to be.
    pub share_larger: f64,
    /// The deviation from that in standard deviations.
    pub z: f64,
    /// How likely a deviation as large is by chance alone, to either side.
    pub p: f64,
}

/// Compares two samples, by the normal approximation with ties corrected: fit for samples of twenty and more. Samples
/// that are empty, or all of one value, differ in nothing.
#[must_use]
pub fn rank_test(first: &[u64], second: &[u64]) -> RankTest {
    let (n1, n2) = (first.len() as f64, second.len() as f64);
    let mut all: Vec<(u64, bool)> =
        first.iter().map(|&value| (value, false)).chain(second.iter().map(|&value| (value, true))).collect();
    all.sort_unstable();
    let (mut rank_sum, mut ties) = (0.0, 0.0);
    let mut below = 0.0;
    for group in all.chunk_by(|one, other| one.0 == other.0) {
        let len = group.len() as f64;
        let of_second = group.iter().filter(|(_, is_second)| *is_second).count() as f64;
        // All of a group have the middle of its ranks.
        rank_sum += of_second * (below + f64::midpoint(len, 1.0));
        ties += len * len * len - len;
        below += len;
    }
    let n = n1 + n2;
    let larger = rank_sum - n2 * (n2 + 1.0) / 2.0;
    let variance = n1 * n2 / 12.0 * (n + 1.0 - ties / (n * (n - 1.0)));
    if variance.is_nan() || variance <= 0.0 {
        return RankTest { share_larger: 0.5, z: 0.0, p: 1.0 };
    }
    let z = (larger - n1 * n2 / 2.0) / variance.sqrt();
    RankTest { share_larger: larger / (n1 * n2), z, p: erfc(z.abs() / std::f64::consts::SQRT_2) }
}

/// The complementary error function of a number that is not negative, to 1.5e-7: Abramowitz and Stegun, 7.1.26.
fn erfc(x: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.327_591_1 * x);
    let polynomial = [1.061_405_429, -1.453_152_027, 1.421_413_741, -0.284_496_736, 0.254_829_592];
    polynomial.iter().fold(0.0, |sum, coefficient| (sum + coefficient) * t) * (-x * x).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(one: f64, other: f64) -> bool {
        (one - other).abs() < 1e-4
    }

    /// As scipy.stats.mannwhitneyu(second, first, use_continuity=False, method="asymptotic") has it.
    #[test]
    fn the_ranks_of_a_known_example() {
        let found = rank_test(&[19, 22, 16, 29, 24], &[20, 11, 17, 12]);
        assert!(near(found.share_larger, 3.0 / 20.0), "{found:?}");
        assert!(near(found.z, -1.714_643) && near(found.p, 0.086_411), "{found:?}");
    }

    #[test]
    fn ties_share_their_ranks() {
        let found = rank_test(&[1, 2, 2, 3], &[2, 3, 3, 4]);
        // Of 16 pairs 11 are larger and 4 as large.
        assert!(near(found.share_larger, 13.0 / 16.0), "{found:?}");
        assert_eq!(rank_test(&[5; 30], &[5; 30]), RankTest { share_larger: 0.5, z: 0.0, p: 1.0 });
        assert_eq!(rank_test(&[], &[1]).p, 1.0);
    }

    #[test]
    fn samples_alike_are_told_from_samples_that_are_moved() {
        let alike: Vec<u64> = (0..2000).map(|n| n * 7919 % 1000).collect();
        let other: Vec<u64> = (0..2000).map(|n| n * 6101 % 1000).collect();
        let moved: Vec<u64> = other.iter().map(|value| value + 60).collect();
        assert!(rank_test(&alike, &other).p > 0.9);
        let found = rank_test(&alike, &moved);
        assert!(found.p < 1e-6 && found.share_larger > 0.54, "{found:?}");
        let back = rank_test(&moved, &alike);
        assert!(near(back.share_larger, 1.0 - found.share_larger) && near(back.z, -found.z));
    }
}
