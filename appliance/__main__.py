"""`python -m appliance` is `delineate`."""

from appliance.cli import main

if __name__ == "__main__":
    main()
