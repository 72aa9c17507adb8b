"""What a learned loss is measured against."""
