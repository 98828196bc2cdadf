//! The minimal IAM policy: one statement for the gateway, one for the administrator's commands, so that the gateway's role
//! need not be allowed to list sessions or create tables.

use serde_json::{Value, json};

/// The actions of the gateway: the operations on rows, and `DescribeTable` to check the table's key at the start.
const SERVE: [&str; 5] = [
    "dynamodb:GetItem",
    "dynamodb:PutItem",
    "dynamodb:UpdateItem",
    "dynamodb:DeleteItem",
    "dynamodb:DescribeTable",
];

/// The additional actions of the commands `table` and `session`.
const ADMINISTER: [&str; 4] =
    ["dynamodb:CreateTable", "dynamodb:DescribeTimeToLive", "dynamodb:UpdateTimeToLive", "dynamodb:Scan"];

/// Returns the IAM policy for a table. Without a region, it applies to the tables of that name in all regions.
pub fn for_table(table: &str, region: Option<&str>) -> Value {
    let resource = resource(table, region);
    json!({
        "Version": "2012-10-17",
        "Statement": [
            { "Sid": "SessiongateServe", "Effect": "Allow", "Action": SERVE, "Resource": resource },
            { "Sid": "SessiongateAdminister", "Effect": "Allow", "Action": ADMINISTER, "Resource": resource },
        ],
    })
}

fn resource(table: &str, region: Option<&str>) -> String {
    // DynamoDB accepts an ARN in place of a table's name, which tables of other accounts require.
    if table.starts_with("arn:") {
        return table.to_owned();
    }
    let partition = match region {
        Some(region) if region.starts_with("cn-") => "aws-cn",
        Some(region) if region.starts_with("us-gov-") => "aws-us-gov",
        Some(_) | None => "aws",
    };
    format!("arn:{partition}:dynamodb:{}:*:table/{table}", region.unwrap_or("*"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateway_may_neither_list_sessions_nor_change_tables() {
        let policy = for_table("sessions", Some("eu-central-1"));
        let serve = &policy["Statement"][0];
        assert_eq!(serve["Resource"], "arn:aws:dynamodb:eu-central-1:*:table/sessions");
        for action in serve["Action"].as_array().unwrap() {
            assert!(!ADMINISTER.contains(&action.as_str().unwrap()));
        }
    }

    #[test]
    fn resource_has_the_partition_of_the_region_or_is_the_arn() {
        assert_eq!(resource("s", Some("cn-north-1")), "arn:aws-cn:dynamodb:cn-north-1:*:table/s");
        assert_eq!(resource("s", Some("us-gov-west-1")), "arn:aws-us-gov:dynamodb:us-gov-west-1:*:table/s");
        assert_eq!(resource("s", None), "arn:aws:dynamodb:*:*:table/s");
        let arn = "arn:aws:dynamodb:us-east-1:123456789012:table/s";
        assert_eq!(resource(arn, Some("eu-west-1")), arn);
    }
}
