"""DynamoDB's request units by item size and consistency, and their list prices."""

from dataclasses import dataclass

HOURS_OF_MONTH = 730
DAYS_OF_MONTH = HOURS_OF_MONTH / 24


def read_units(size, strong):
    """Returns the units of a read. A missing item costs as much as a small one."""
    blocks = max(1, -(-size // 4096))
    return float(blocks) if strong else blocks / 2


def write_units(size, transactional=False):
    """Returns the units of a write, whether or not its condition holds."""
    blocks = max(1, -(-size // 1024))
    return float(2 * blocks if transactional else blocks)


@dataclass(frozen=True)
class Prices:
    """Prices in US dollars: per million units on demand, and per provisioned unit and hour."""

    read: float
    write: float
    read_hour: float
    write_hour: float
    source: str

    def on_demand(self, reads, writes):
        return (reads * self.read + writes * self.write) / 1e6

    def provisioned(self, reads_by_hour, writes_by_hour, utilisation):
        """Returns the price of a day if the capacity is adapted to the load every hour, with this utilisation."""
        reads, writes = (sum(hours) / 3600 / utilisation for hours in (reads_by_hour, writes_by_hour))
        return reads * self.read_hour + writes * self.write_hour


LIST_PRICES = Prices(0.125, 0.625, 0.00013, 0.00065, "us-east-1, Standard table class, as listed since November 2024")
