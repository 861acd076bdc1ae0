alter system set ssl = on
