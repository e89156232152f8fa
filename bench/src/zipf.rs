//! How popular ads are: Zipf's law as a table to draw from evenly.

/// One ad for each of `cells` cells: ads 0 to `ads - 1`, each as often as Zipf's law with exponent 1
/// says of what is left when the first has had its `hot_share`, 0 to 1.
#[must_use]
pub fn ad_table(cells: usize, ads: u32, hot_share: f64) -> Vec<u32> {
    let total: f64 = (1..=ads).map(|rank| 1.0 / f64::from(rank)).sum::<f64>() / (1.0 - hot_share);
    let (mut ad, mut up_to) = (0, hot_share + 1.0 / total);
    (0..cells)
        .map(|cell| {
            let share = (cell as f64 + 0.5) / cells as f64;
            while share > up_to && ad + 1 < ads {
                ad += 1;
                up_to += 1.0 / f64::from(ad + 1) / total;
            }
            ad
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_a_hundred_ads_gets_its_zipf_share() {
        const CELLS: usize = 1 << 16;
        let share = |table: &[u32]| table.iter().filter(|&&ad| ad == 0).count() as f64 / CELLS as f64;
        let table = ad_table(CELLS, 100, 0.0);
        assert!((share(&table) - 1.0 / 5.187).abs() < 0.001, "{}", share(&table));
        assert_eq!(table.iter().max(), Some(&99));
        let hot = ad_table(CELLS, 100, 0.9);
        assert!((share(&hot) - 0.9 - 0.1 / 5.187).abs() < 0.001, "{}", share(&hot));
        assert_eq!(hot.iter().max(), Some(&99));
    }
}
