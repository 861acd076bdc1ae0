update {schema}.account set sum = sum + 1
