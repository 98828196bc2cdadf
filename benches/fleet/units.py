"""What DynamoDB charges: request units by item size and consistency, and list prices for them."""

from dataclasses import dataclass

HOURS_OF_MONTH = 730
DAYS_OF_MONTH = HOURS_OF_MONTH / 24


def read_units(size, strong):
    """An item that is not there costs as much as a small one."""
    blocks = max(1, -(-size // 4096))
    return float(blocks) if strong else blocks / 2


def write_units(size, transactional=False):
    """A write that its condition refuses costs as much as one that is done."""
    blocks = max(1, -(-size // 1024))
    return float(2 * blocks if transactional else blocks)


@dataclass(frozen=True)
class Prices:
    """US dollars: for a million units on demand, and for a unit a second for an hour, provisioned."""

    read: float
    write: float
    read_hour: float
    write_hour: float
    source: str

    def on_demand(self, reads, writes):
        return (reads * self.read + writes * self.write) / 1e6

    def provisioned(self, reads_by_hour, writes_by_hour, utilisation):
        """A day whose capacity follows the load by the hour, which fills it to `utilisation`."""
        reads, writes = (sum(hours) / 3600 / utilisation for hours in (reads_by_hour, writes_by_hour))
        return reads * self.read_hour + writes * self.write_hour


LIST_PRICES = Prices(0.125, 0.625, 0.00013, 0.00065, "us-east-1, Standard table class, as listed since November 2024")
