"""The features of a click, in the order a model reads them.

`userspace/src/score/features.rs` computes them and is where a feature is added; a model that names
other features than the node's is refused, and a test holds the committed sample to this.
"""

VERSION = 1

NAMES = [
    "device",
    "os",
    "country_known",
    "latitude",
    "longitude",
    "price",
    "ordinal",
    "click_age_s",
    "time_to_click_s",
    "hour_utc",
    "signed",
    "ipv6",
    "data_centre",
    "user_known",
    "point_x",
    "point_y",
    "user_agent_length",
    "user_agent_class",
    "referrer_length",
    "user_clicks_minute",
    "user_clicks_hour",
    "address_clicks_minute",
    "address_clicks_hour",
    "address_users_hour",
]
