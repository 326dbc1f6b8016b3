//! Columns and bars as SVG. Colours are the style sheet's; what a bar stands
//! for is also said in words.

use maud::{Markup, html};

// A shape is closed by `{}`: without, it would hold those that follow, and none would be drawn.

/// One bar: what it counts, how many went well, how many did not.
pub(super) struct Bar {
    pub(super) name: String,
    /// Written below it; empty where there is no room for every name.
    pub(super) label: String,
    pub(super) well: u64,
    pub(super) ill: u64,
}

const WIDTH: u64 = 360;
const HEIGHT: u64 = 150;
/// Room for numbers above and labels below.
const TOP: u64 = 18;
const BOTTOM: u64 = 22;

/// Upright columns with a title and one sentence for those who do not see it.
pub(super) fn columns(id: &str, title: &str, sentence: &str, bars: &[Bar], numbers: bool) -> Markup {
    let highest = bars.iter().map(|bar| bar.well + bar.ill).max().unwrap_or(0).max(1);
    let room = HEIGHT - TOP - BOTTOM;
    let step = WIDTH as f64 / bars.len().max(1) as f64;
    let gap = (step * 0.22).min(6.0);
    let floor = (HEIGHT - BOTTOM) as f64;
    html! {
        figure {
            figcaption { (title) }
            svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } role="img" aria-labelledby={ (id) "-d" } {
                desc id={ (id) "-d" } { (title) ": " (sentence) }
                line class="axis" x1="0" x2=(WIDTH) y1=(floor) y2=(floor) {}
                @for (number, bar) in bars.iter().enumerate() {
                    @let x = number as f64 * step;
                    @let well = part(bar.well, highest, room);
                    @let ill = part(bar.ill, highest, room);
                    @let middle = short(x + step / 2.0);
                    g {
                        title { (bar.name) }
                        @if bar.well > 0 {
                            rect class="well" x=(short(x + gap)) y=(short(floor - well))
                                width=(short(step - 2.0 * gap)) height=(short(well)) rx="2" {}
                        }
                        @if bar.ill > 0 {
                            rect class="ill" x=(short(x + gap)) y=(short(floor - well - ill))
                                width=(short(step - 2.0 * gap)) height=(short(ill)) rx="2" {}
                        }
                        @if numbers && bar.well + bar.ill > 0 {
                            text class="number" x=(middle) y=(short(floor - well - ill - 4.0)) { (grouped(bar.well + bar.ill)) }
                        }
                        @if !bar.label.is_empty() {
                            text class="label" x=(middle) y=(HEIGHT - 6) { (bar.label) }
                        }
                    }
                }
            }
        }
    }
}

/// A count's share of the room; what is there can be seen.
fn part(count: u64, highest: u64, room: u64) -> f64 {
    if count == 0 { 0.0 } else { (count as f64 / highest as f64 * room as f64).max(2.0) }
}

fn short(number: f64) -> String {
    format!("{number:.1}")
}

/// A number with its thousands apart.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let first = digits.len() % 3;
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && place % 3 == first {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_apart() {
        let texts = [0, 7, 999, 1_000, 12_345, 1_234_567].map(|number| grouped(number).replace('\u{202f}', " "));
        assert_eq!(texts, ["0", "7", "999", "1 000", "12 345", "1 234 567"]);
    }
}
