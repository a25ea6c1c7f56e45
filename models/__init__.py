"""Networks, one file each, and the model packages that the appliance runs. Imports nothing from `appliance`."""
